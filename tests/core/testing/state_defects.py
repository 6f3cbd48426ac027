"""Defects of the JSON plugin that keep something between calls, or change what calls share."""

from __future__ import annotations

from collections.abc import Mapping

from tests.core.testing.form_plugin import Defect

_BEGIN = "# BEGIN"
_PACK = "# PACK"
_UNPACK = "# UNPACK"
_STATE = "# STATE"

DEFECTS: Mapping[str, Defect] = {
    "state is shared between calls": Defect(
        changes={
            _BEGIN: "self.request = request",
            _UNPACK: "request = self.request",
            "artifacts, errors = [], []": "artifacts, errors = [], []\n"
            "        entries = [(f, (s or 0) + (request.params.seed or 0), d) for f, s, d in entries]",
        },
        check="two_calls_at_once",
        says="the plugin shares state",
    ),
    "an answer is cached": Defect(
        changes={_STATE: "answers = {}", _UNPACK: "response = self.answers.setdefault(operation.id, response)"},
        check="two_calls_at_once",
        says="the plugin shares state",
    ),
    "a constant is changed": Defect(
        changes={_PACK: 'request.constants["count"] = fields["count"] = request.constants.get("count", 0) + 1'},
        check="equal_calls_send_equal_requests",
        says="a second equal call, a day later, sent another request than the first",
    ),
    "state is shared between prompts": Defect(
        changes={
            _STATE: "prompts = []",
            _BEGIN: "self.prompts.append(request.params.prompt)",
            "artifacts, errors = [], []": "artifacts, errors = [], []\n"
            "        entries = [(f, len(self.prompts[-1]), d) for f, s, d in entries]",
        },
        check="two_calls_at_once",
        says="the plugin shares state",
    ),
    "answers are cached by their parameters": Defect(
        changes={_STATE: "answers = {}", _UNPACK: "response = self.answers.setdefault(repr(request.params), response)"},
        check="two_calls_at_once",
        says="an equal call to another account has the first one's result",
    ),
    "the key of the first account": Defect(
        changes={_STATE: "first = None", _PACK: "self.first = self.first or account; headers |= self.first.headers"},
        check="two_calls_at_once",
        says="a call of another account has the first one's key",
    ),
    "the end user of an earlier call": Defect(
        changes={
            _STATE: "user = None",
            _BEGIN: "self.user = request.user or self.user; request = attrs.evolve(request, user=self.user)",
        },
        check="end_user_is_passed_on",
        says="a call without an end user sends the id of an earlier call's",
    ),
    "a hook changes the parameters": Defect(
        changes={_PACK: "object.__setattr__(request.params, 'seed', 7)"},
        check="no_hook_changes",
        says="a hook changed the call's parameters",
    ),
    "a hook changes the account": Defect(
        changes={_PACK: "account.headers['x-client'] = 'acme'"},
        check="no_hook_changes",
        says="a hook changed the call's account",
    ),
}
