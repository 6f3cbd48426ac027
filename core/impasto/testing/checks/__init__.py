"""The checks of a model, by subject."""

from .declaration import DeclarationChecks as DeclarationChecks
from .parameter import ParameterChecks as ParameterChecks
from .response import ResponseChecks as ResponseChecks
from .runtime import RuntimeChecks as RuntimeChecks
from .wire import WireChecks as WireChecks
