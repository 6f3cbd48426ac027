"""OpenAI's parameters translated to a model's own. It knows no model: it reads the declared fields.

Pure: nothing is read, opened or sent here. ``check.py`` finishes the work. The functions, the gateway and the batch
runner use both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import attrs

from impasto import AspectRatios, InvalidRequest, Operation, Problem, Sizes
from impasto.ext import MAX_PROBLEMS, Makes, check_n, field_at, kind_in_words, pass_interrupt
from impasto.fields import format_value
from impasto.rules import Needs, value_at

from .sizes import checked_size, fit_size, leaves_of, with_values
from .words import MOST_PARTIAL_IMAGES, advice, is_neutral, may_be_dropped

Format = Literal["b64_json", "url"]
FORMATS: tuple[Format, ...] = ("b64_json", "url")
LONGEST_USER = 256
_MADE: Mapping[Makes, str] = {"image": "images", "audio": "sounds", "3d": "3D models"}


@attrs.frozen(kw_only=True)
class Translation:
    """A call in the model's own parameters.

    ``params`` are the model's fields, not checked yet; ``words`` has the caller's name of each. ``problems`` are those
    so far: ``check.check_request`` finds the others and raises them all.
    """

    params: Mapping[str, object] = attrs.field(repr=lambda params: str(list(params)))
    words: Mapping[str, str]
    n: int = 1
    user: str | None = None
    response_format: Format = "b64_json"
    stream: bool = False
    """True if the caller takes a stream of events."""
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def translate(
    operation: Operation,
    arguments: Mapping[str, object],
    *,
    extra_body: object = None,
    drop_params: object = None,
    defaults: Mapping[str, object] | None = None,
    edit: bool = False,
    makes: Makes = "image",
    stream: bool = False,
) -> Translation:
    """Translate a call's arguments (None means not given) for a model.

    ``extra_body`` adds to them. ``drop_params``: parameters without a field are dropped with a warning instead of
    refused. ``defaults``: values for parameters that the call does not give; one that conflicts with the call is left
    out. ``edit``: the call edits an image, so there must be one. ``makes``: the kind of output that the call asks for.
    ``stream``: the caller takes a stream of events.
    Raises InvalidRequest if the model's output is another.
    """
    if operation.output != makes:
        raise InvalidRequest([Problem("model", f"makes {_MADE[operation.output]}, and this call {_MADE[makes]}")])
    work = _Translator(operation, {name: value for name, value in arguments.items() if value is not None})
    if extra_body is not None:
        work.merge(extra_body)
    if isinstance(drop_params, bool):
        work.drop = drop_params
    elif drop_params is not None:
        work.refuse("drop_params", f"must be true or false, not {format_value(drop_params)}")
    fields = work.add_defaults(defaults) if defaults else {}
    words, own = work.arguments, operation.fields
    n = work.n(words.pop("n")) if "n" in words else 1
    answer = work.response_format(words.pop("response_format")) if "response_format" in words else FORMATS[0]
    user = work.user(words.pop("user")) if "user" in words and "user" not in own else None
    if "partial_images" in words and "partial_images" not in own:
        work.partial_images(words.pop("partial_images"))
    work.images(edit=edit)
    if "mask" in words:
        work.mask(words.pop("mask"))
    if "prompt" in words:
        work.prompt(words.pop("prompt"))
    if words:
        work.own_fields()
    size = work.size(words.pop("size")) if "size" in words else None
    if words:
        work.others()
    if size is not None:
        work.shape(size)
    if fields:
        work.fill(fields)
    return Translation(
        params=work.params,
        words=work.words,
        n=n,
        user=user,
        response_format=answer,
        stream=stream,
        warnings=tuple(work.warnings),
        problems=tuple(work.problems),
    )


@attrs.define
class _Translator:
    """A translation in progress: ``arguments`` holds what is still to be placed."""

    operation: Operation
    arguments: dict[str, object]
    drop: bool = False
    has_image: bool = False
    params: dict[str, object] = attrs.field(factory=dict[str, object])
    words: dict[str, str] = attrs.field(factory=dict[str, str])
    warnings: list[str] = attrs.field(factory=list[str])
    problems: list[Problem] = attrs.field(factory=list[Problem])

    def merge(self, extra: object) -> None:
        if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
            self.refuse("extra_body", f"must be a mapping of names to values, not {kind_in_words(extra)}")
            return
        for name, value in cast("Mapping[str, object]", extra).items():
            if value is None:
                continue
            if name in self.arguments or name == "model":
                self.refuse(name[:60], "is both an argument and in extra_body; leave one out")
            else:
                self.arguments[name] = value

    def add_defaults(self, defaults: Mapping[str, object]) -> Mapping[str, object]:
        """Take OpenAI's words among the defaults that the call does not give, and return the model's own fields."""
        own = {self.operation.aliases.get(word, word): value for word, value in defaults.items()}
        own = {name: value for name, value in own.items() if name in self.operation.fields}
        if self._translates_size():
            own.pop("size", None)
        for word, value in defaults.items():
            is_own = word in own or self.operation.aliases.get(word) in self.operation.fields
            if not is_own and value is not None and not (word == "size" and self._has_shape()):
                self.arguments.setdefault(word, value)
        return own

    def _translates_size(self) -> bool:
        """Return True if the model's own field ``size`` takes the nearest of its choices."""
        size = self.operation.size
        return size is not None and any(name.partition(".")[0] == "size" for name in size.names)

    def _has_shape(self) -> bool:
        """Return True if the call sets a field that ``size`` would set too."""
        size = self.operation.size
        return size is not None and any(self._is_set(self.arguments, name) for name in size.names)

    def _is_set(self, params: Mapping[str, object], name: str) -> bool:
        """Return True if a field has a value, also a nested one if a text stands in place of its object."""
        first = name.partition(".")[0]
        field = self.operation.fields.get(first)
        return value_at(params, name) is not None or (field is not None and params.get(first) in field.choices)

    def fill(self, defaults: Mapping[str, object]) -> None:
        """Place default values of the model's fields, as far as its rules allow them beside the rest."""
        own = {name: value for name, value in defaults.items() if name not in self.params}
        chosen = dict(leaves_of(own, self.operation.fields))
        if not chosen:
            return
        before = self._broken_fields(self.params)
        while wrong := self._broken_fields(with_values(self.params, chosen)) - before:
            del chosen[self._least_fitting(chosen, wrong)]
        params = self._implied(with_values(self.params, chosen))
        needs = [rule for rule in self.operation.rules if isinstance(rule, Needs) and not rule.applies(params)]
        fitting = {name: each for name, each in chosen.items() if not any(name in rule.others for rule in needs)}
        self.params = with_values(self.params, fitting)
        self.words |= {name: name for name in own if name in self.params}

    def _least_fitting(self, chosen: Mapping[str, object], wrong: set[str]) -> str:
        """Return the default to leave out: one that a rule names, or else one without which fewer rules are broken."""

        def without(name: str) -> int:
            rest = {each: value for each, value in chosen.items() if each != name}
            return len(self._broken_fields(with_values(self.params, rest)))

        return next((name for name in chosen if name in wrong), None) or min(chosen, key=without)

    def n(self, n: object) -> int:
        try:
            check_n(n)
        except InvalidRequest as error:
            self.problems += error.problems
            return 1
        return cast(int, n)

    def response_format(self, value: object) -> Format:
        for format in FORMATS:
            if isinstance(value, str) and value == format:
                return format
        self.refuse("response_format", f"must be one of {', '.join(FORMATS)}, not {format_value(value)}")
        return "b64_json"

    def user(self, user: object) -> str | None:
        if not isinstance(user, str) or not (user.isascii() and user.isprintable() and user.strip() == user != ""):
            self.refuse("user", "must be text of printable ASCII characters, with no space at its ends")
        elif len(user) > LONGEST_USER:
            self.refuse("user", f"must be of at most {LONGEST_USER} characters, not {len(user):,}")
        elif self.operation.provider.user_header is None and self.operation.provider.user_field is None:
            self.warnings.append(f"user was not sent: {self.operation.provider.name} has no place for it")
        else:
            return user
        return None

    def partial_images(self, value: object) -> None:
        """Take OpenAI's number of partial images for a model that has no such field: a caller can do without."""
        if type(value) is not int or not 0 <= value <= MOST_PARTIAL_IMAGES:
            rule = f"must be a whole number from 0 to {MOST_PARTIAL_IMAGES}"
            self.refuse("partial_images", f"{rule}, not {format_value(value)}")
        elif value:
            sends = "decides how many it sends" if self.operation.streams else "sends whole images only"
            self.warnings.append(f"partial_images has no effect: this model {sends}")

    def images(self, *, edit: bool) -> None:
        """Fill the model's image fields, in their order, from ``image``."""
        slots = self._named_by("image")
        image = self.arguments.pop("image", None)
        self.has_image = image is not None or any(slot in self.arguments for slot in slots)
        if image is not None:
            images = [each for each in _images_of(image) if each is not None]
            if images and not slots and not edit:
                self._drop_or_refuse("image", "this model takes no image; leave it out")
            elif not images:
                self.refuse("image", "is an empty list; give an image")
            elif len(images) > (most := sum(map(self._most_files, slots))):
                self.refuse("image", f"this model takes {_counted(most)}, not {len(images)}")
            for slot in slots:
                if self.operation.fields[slot].kind == "files":
                    taken, images = images[: self._most_files(slot)], images[self._most_files(slot) :]
                    if taken:
                        self._place(slot, taken, "image")
                elif images:
                    first, *images = images
                    self._place(slot, first, "image")
        elif edit and not slots:
            self.refuse("image", "this model takes no image to edit; use image_generation")
        elif edit and not self.has_image:
            self.refuse("image", "required")

    def _most_files(self, name: str) -> int:
        field = self.operation.fields[name]
        return 1 if field.kind != "files" else sys.maxsize if field.maximum is None else int(field.maximum)

    def mask(self, mask: object) -> None:
        for slot in self._named_by("mask"):
            self._place(slot, mask, "mask")
            if not self.has_image:
                self.refuse("mask", "needs an image; give one too")
            return
        self._drop_or_refuse("mask", "this model takes no mask; leave it out")

    def prompt(self, prompt: object) -> None:
        for slot in self._named_by("prompt"):
            if isinstance(prompt, str) and not prompt.strip():
                self.refuse("prompt", "is blank; describe the image")
            else:
                self._place(slot, prompt, "prompt")
            return
        self.warnings.append("prompt was dropped: this model takes no prompt")

    def own_fields(self) -> None:
        """Place arguments under the model's names, or under a field's alias, which may join an object."""
        fields, also = self.operation.fields, self.operation.aliases
        for word in sorted(self.arguments, key=also.__contains__):
            name = word if word in fields else also.get(word)
            if name is None or (name == "size" and self._translates_size() and not self._is_own_size(word)):
                continue
            self._place(name, self.arguments.pop(word), word)

    def _is_own_size(self, word: str) -> bool:
        """Return True for an object in a model's own field ``size``, and for a text that may stand in its place."""
        field, value = self.operation.fields["size"], self.arguments[word]
        return field.kind == "group" and (not isinstance(value, str) or value in field.choices)

    def size(self, size: object) -> str | None:
        declared = self.operation.size
        if isinstance(declared, Sizes) and isinstance(size, str) and size in declared.choices:
            return str.__str__(size)  # also a word such as auto
        try:
            return checked_size(size)
        except ValueError as error:
            self.refuse("size", str(error))
            return None

    def others(self) -> None:
        """Pass, drop or refuse every argument that the model has no field for."""
        words = [
            word
            for word, value in self.arguments.items()
            if not (is_neutral(word, value) or (word == "background" and self._cuts_out(value)))
        ]
        for word in words[:MAX_PROBLEMS]:
            self._drop_or_refuse(word, advice(word, self.operation.fields))
        others = words[MAX_PROBLEMS:]
        refused = [word for word in others if not (self.drop and may_be_dropped(word))]
        self.problems += (Problem(word[:60], f"unknown parameter {word[:60]!r}") for word in refused)
        if len(refused) < len(others):
            self.warnings.append(f"{len(others) - len(refused):,} more unknown parameters were dropped")
        self.arguments.clear()

    def shape(self, size: str) -> None:
        """Convert a checked size to the fields that set it."""
        declared = self.operation.size
        fitted = fit_size(size, declared, self.operation.fields) if declared is not None else None
        if declared is None or fitted is None:
            missing = " or ".join(declared.names) if declared is not None else "aspect_ratio"
            has_field = declared is not None and field_at(self.operation.fields, declared.names[0]) is not None
            reason = f"no choice of {missing} has a shape" if has_field else f"this model takes no {missing}"
            self.warnings.append(f"size {size} has no effect: {reason}")
            return
        values, exact = fitted
        params, pixels = with_values(self.params, values), "x".join(map(str, values.values()))
        if chosen := [name for name in values if self._is_set(self.params, name)]:
            self.problems += (
                Problem(name, "can't be combined with size, which sets it too; leave one out") for name in chosen
            )
        elif any(f"{name}.".startswith(f"{each}.") for each in self._broken_fields(params) for name in values):
            refused = f"the rules of this model do not allow {pixels} here"
            reason = "the input image sets the shape" if self.has_image else refused
            self.warnings.append(f"size {size} has no effect: {reason}")
        else:
            self.words = {**dict.fromkeys((*values, *params), "size"), **self.words}
            self.params = params
            if not exact:
                became = f"{declared.names[0]} " if isinstance(declared, AspectRatios) else ""
                self.warnings.append(f"size {size} became {became}{pixels}, the nearest of this model's")

    def _cuts_out(self, background: object) -> bool:
        return self.operation.transparent_output and isinstance(background, str) and background == "transparent"

    def _broken_fields(self, params: Mapping[str, object]) -> set[str]:
        """Return the fields whose rules are broken by these parameters."""
        params_with_derived = self._implied(params)
        try:
            return {problem.field for rule in self.operation.rules for problem in rule.problems(params_with_derived)}
        except BaseException as error:  # noqa: BLE001 - the check of the whole request meets it again and reports the plugin
            pass_interrupt(error)
            return set()

    def _implied(self, params: Mapping[str, object]) -> Mapping[str, object]:
        try:
            implied = self.operation.derive_params(params)
        except BaseException as error:  # noqa: BLE001 - the check of the whole request meets it again and reports the plugin
            pass_interrupt(error)
            implied = params
        return {name: value for name, value in implied.items() if value is not None}

    def _named_by(self, role: str) -> Sequence[str]:
        """Return the fields of a role; if none has it, the field of that name."""
        operation = self.operation
        return operation.roles.get(role) or ((role,) if role in operation.fields else ())

    def _place(self, field: str, value: object, word: str) -> None:
        nested = "." in field
        if field in self.params or (nested and value_at(self.params, field) is not None):
            other = self.words.get(field) or self.words[field.partition(".")[0]]
            self.refuse(word, f"is the same as {other} for this model (its field {field}); leave one out")
            return
        if nested:
            self.params = with_values(self.params, {field: value})
        else:
            self.params[field] = value
        self.words[field] = word

    def refuse(self, word: str, message: str) -> None:
        self.problems.append(Problem(word, message))

    def _drop_or_refuse(self, word: str, message: str) -> None:
        if self.drop and may_be_dropped(word):
            self.warnings.append(f"{word[:60]} was dropped: {message}")
        else:
            self.refuse(word[:60], message)


def _images_of(image: object) -> Sequence[object]:
    """Return the images of an ``image`` argument: a list, or one. ``(name, bytes)`` is one."""
    if isinstance(image, list):
        return image
    if isinstance(image, tuple) and not (image and isinstance(image[0], str | None) and _is_content(image[1:])):
        return image
    return [image]


def _is_content(after_name: tuple[object, ...]) -> bool:
    """Return True if a tuple's second part is a file's content: two paths are two images."""
    return bool(after_name) and not isinstance(after_name[0], str | os.PathLike | None)


def _counted(images: int) -> str:
    return {0: "no image", 1: "one image"}.get(images, f"at most {images} images")
