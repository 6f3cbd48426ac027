"""Checks of files and batches."""

from __future__ import annotations

import attrs

from impasto.state_records import ObjectsFull, StoredObject
from impasto.states import StateStore
from impasto.testing.watch import check

from .subject import (
    HOUR,
    IDENTITY,
    OTHER,
    OTHER_IDENTITY,
    OWNER,
    StateSubject,
    at_once,
    insert_object,
    new_id,
    new_object,
)

_TASKS = 10


class ObjectChecks(StateSubject):
    """Checks of objects: inserted within limits, replaced, listed, expired."""

    @check
    def test_an_object_is_stored_as_it_was(self, address: str) -> None:
        """Check every field, and that kind, id and owner find it."""

        async def work(state: StateStore) -> None:
            now = await state.now()
            item = StoredObject(
                kind="batch",
                id=new_id(),
                owner=OWNER,
                status="in_progress",
                label="vision",
                identity=IDENTITY,
                size=10**13,
                body='{"metadata": {"a": "\u20ac \\u0000"}}',
                created=now - 0.5,
                expires=now + HOUR,
            )
            assert await state.objects.insert(item, max_count=1, max_bytes=10**13) == item, "it has room"
            assert await state.objects.find("batch", item.id, OWNER) == item, "an object is not stored as it was"
            for kind, id, owner in (("file", item.id, OWNER), ("batch", new_id(), OWNER), ("batch", item.id, OTHER)):
                assert await state.objects.find(kind, id, owner) is None, "another kind, id or owner found an object"
            await state.objects.delete([item.id, new_id()])
            assert await state.objects.find("batch", item.id, OWNER) is None, "a deleted object was found"

        self.use(address, work)

    @check
    def test_a_request_makes_one_object(self, address: str) -> None:
        """Check a repeated insert, and one with the same fingerprint of its owner, even if there is no more room."""

        async def work(state: StateStore) -> None:
            now = await state.now()
            first = await insert_object(state, identity=IDENTITY)
            insert = state.objects.insert
            assert await insert(first, max_count=1) == first, "a repeated insert must return the object"
            again = await new_object(state, identity=IDENTITY)
            assert await insert(again, max_count=1, since=now - 1) == first, "the same request made a second object"
            for other in (
                attrs.evolve(again, id=new_id(), owner=OTHER),
                attrs.evolve(again, id=new_id(), kind="batch"),
                attrs.evolve(again, id=new_id(), identity=OTHER_IDENTITY),
            ):
                assert await insert(other, max_count=9, since=now - 1) == other, "another request got this object"
            later = attrs.evolve(again, id=new_id())
            assert await insert(later, max_count=9, since=now + HOUR) == later, "an object from before since was found"
            without = attrs.evolve(again, id=new_id())
            assert await insert(without, max_count=9) == without, "without since each insert is a new object"

        self.use(address, work)

    @check
    def test_objects_stay_within_their_limits(self, address: str) -> None:
        """Check the number for each owner and kind, and the bytes of all."""

        async def work(state: StateStore) -> None:
            for _ in range(2):
                await insert_object(state)
            await insert_object(state, owner=OTHER)
            batch = await insert_object(state, kind="batch", size=70)
            insert, item = state.objects.insert, await new_object(state)
            full = await insert(item, max_count=2)
            assert isinstance(full, ObjectsFull), "an owner has more objects than max_count"
            assert full.count == 0, f"no object is left, not {full.count}"
            full = await insert(item, max_count=5, max_bytes=109)
            assert isinstance(full, ObjectsFull), "all objects take more than max_bytes"
            assert (full.count, full.bytes) == (3, 9), f"3 objects and 9 bytes are left, not {full}"
            assert await state.objects.find("file", item.id, OWNER) is None, "an object without room was inserted"
            assert await insert(item, max_count=3, max_bytes=110) == item, "an object that has room was refused"
            larger, least = attrs.evolve(batch, size=75), 114
            refusal = await state.objects.replace(batch, larger, max_bytes=least)
            assert isinstance(refusal, ObjectsFull), "replace takes more than max_bytes"
            assert refusal.bytes == 4, f"4 bytes are left, not {refusal.bytes}"
            assert await state.objects.find("batch", batch.id, OWNER) == batch, "an object without room was replaced"
            assert await state.objects.replace(batch, larger, max_bytes=least + 1) is True, "a change with room"

        self.use(address, work)

    @check
    def test_an_object_is_replaced_only_if_nobody_changed_it(self, address: str) -> None:
        """Check ``replace``: what it finds changed, a repetition, and what it inserts with it."""

        async def work(state: StateStore) -> None:
            old = await insert_object(state, kind="batch", status="running")
            new = attrs.evolve(old, status="done", body='{"a": 1}', size=3, label="x", expires=old.expires + 1)
            further = [await new_object(state), await new_object(state)]
            for difference in ({"status": "other"}, {"body": "{ }"}, {"size": 11}, {"expires": old.expires + 5}):
                other = attrs.evolve(old, **difference)
                changed = await state.objects.replace(other, new, further=further)
                assert changed is False, f"an object with another {next(iter(difference))} was replaced"
            assert await state.objects.find("file", further[0].id, OWNER) is None, "an object came without its change"
            assert await state.objects.replace(old, new, further=further) is True, "an object was not replaced"
            assert await state.objects.replace(old, new, further=further) is False, "it is no longer as old"
            assert await state.objects.replace(new, new, further=further) is True, "a change may change nothing"
            assert await state.objects.find("batch", old.id, OWNER) == new, "an object was not replaced as a whole"
            for each in further:
                assert await state.objects.find("file", each.id, OWNER) == each, "a further object was not inserted"
            await state.objects.delete([old.id])
            assert await state.objects.replace(new, old) is False, "a deleted object was replaced"
            assert await state.objects.find("batch", old.id, OWNER) is None, "a deleted object came back"

        self.use(address, work)

    @check
    def test_pages_hold_an_owners_objects_in_order(self, address: str) -> None:
        """Check order, limit, cursor, statuses and label, with two objects of one moment."""

        async def work(state: StateStore) -> None:
            now = await state.now()
            moments = (now - 3, now - 2, now - 2, now - 1)
            items = [await insert_object(state, created=at, label="ab"[n % 2]) for n, at in enumerate(moments)]
            items = sorted(items, key=lambda item: (item.created, item.id))
            hidden = await insert_object(state, status="uploading")
            await insert_object(state, owner=OTHER)
            await insert_object(state, kind="batch")
            await insert_object(state, expires=now - 1)

            async def page(**options: object) -> list[StoredObject]:
                chosen = {"limit": 9, "statuses": ("ready",), **options}
                return [*await state.objects.page("file", OWNER, **chosen)]  # type: ignore[arg-type]  # options of page

            assert await page(ascending=True) == items, "the oldest come first"
            assert await page() == items[::-1], "the newest come first"
            assert await page(limit=2) == items[:1:-1], "a page has so many objects"
            for place, item in enumerate(items):
                after = await page(after=item.id, ascending=True)
                assert after == items[place + 1 :], "a page begins after the object that it names"
                before = await page(after=item.id)
                assert before == items[:place][::-1], "a page begins after the object that it names"
            assert await page(label="b") == [item for item in items[::-1] if item.label == "b"], "label chooses objects"
            assert hidden in await page(statuses=None), "without statuses all are listed"
            for unknown in (new_id(), (await insert_object(state, owner=OTHER)).id):
                try:
                    await page(after=unknown)
                except KeyError:
                    continue
                raise AssertionError("page raised no KeyError for an unknown id, or another owner's")

        self.use(address, work)

    @check
    def test_a_kind_is_listed_for_all_owners(self, address: str) -> None:
        """Check ``of_kind``: the oldest first, expired ones too."""

        async def work(state: StateStore) -> None:
            now = await state.now()
            newer = await insert_object(state, owner=OTHER, created=now - 1, status="done")
            older = await insert_object(state, created=now - 2, expires=now - 1)
            await insert_object(state, kind="batch")
            assert [*await state.objects.of_kind("file")] == [older, newer], "the oldest come first, expired ones too"
            assert [*await state.objects.of_kind("file", ("done", "x"))] == [newer], "statuses choose objects"

        self.use(address, work)

    @check
    def test_expired_objects_are_deleted_and_returned(self, address: str) -> None:
        """Check ``delete_expired`` and ``keep``."""

        async def work(state: StateStore) -> None:
            now = await state.now()
            current = await insert_object(state)
            expired = await insert_object(state, expires=now - 1)
            active = await insert_object(state, expires=now - 1, status="running")
            batch = await insert_object(state, kind="batch", expires=now - 1)
            assert await state.objects.find("file", expired.id, OWNER) is None, "an expired object was found"
            deleted = [*await state.objects.delete_expired("file", keep=("running",))]
            assert deleted == [expired], "delete_expired must return what it deletes"
            left = [*await state.objects.of_kind("file"), *await state.objects.of_kind("batch")]
            assert {item.id for item in left} == {current.id, active.id, batch.id}, "delete_expired deleted others"

        self.use(address, work)

    @check
    def test_no_change_is_lost_among_many_at_once(self, address: str) -> None:
        """Check changes on two connections that each read, and replace what they read."""

        async def work(state: StateStore) -> None:
            item = await insert_object(state, kind="batch", size=0)

            async def add(store: StateStore) -> None:
                while True:
                    current = await store.objects.find("batch", item.id, OWNER)
                    assert current is not None, "the object is gone"
                    if await store.objects.replace(current, attrs.evolve(current, size=current.size + 1)):
                        return

            async with self.open_store(address) as second:
                await at_once([add(store) for store in [state, second] * (_TASKS // 2)])
            current = await state.objects.find("batch", item.id, OWNER)
            assert current is not None, "the object is gone"
            assert current.size == _TASKS, f"of {_TASKS} changes at once {_TASKS - current.size} were lost"

        self.use(address, work)

    @check
    def test_limits_hold_among_many_at_once(self, address: str) -> None:
        """Check inserts on two connections: never more than fit, and one object for one request."""

        async def work(state: StateStore) -> None:
            async with self.open_store(address) as second:
                stores = [state, second] * _TASKS
                items = [await new_object(state) for _ in stores]
                pairs = [*zip(stores, items, strict=True)]
                answers = await at_once([each.objects.insert(item, max_count=5) for each, item in pairs])
                count = sum(isinstance(answer, StoredObject) for answer in answers)
                assert count == 5, f"{count} objects were inserted at once, of at most 5"
                since = await state.now() - HOUR
                repeats = [attrs.evolve(item, id=new_id(), kind="batch", identity=IDENTITY) for item in items]
                pairs = [*zip(stores, repeats, strict=True)]
                found = await at_once([each.objects.insert(item, max_count=99, since=since) for each, item in pairs])
            assert len({item.id for item in found if isinstance(item, StoredObject)}) == 1, (
                "one request that came many times at once made several objects"
            )

        self.use(address, work)
