"""Checks of the ways to a model: functions of this process, and processes of their own."""

from .functions import FunctionChecks as FunctionChecks
from .processes import ProcessChecks as ProcessChecks
