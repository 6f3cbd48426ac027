"""The checks of a model, by subject."""

from .declaration import DeclarationChecks as DeclarationChecks
from .exchange import ExchangeChecks as ExchangeChecks
from .parameter import ParameterChecks as ParameterChecks
from .response import ResponseChecks as ResponseChecks
from .runtime import RuntimeChecks as RuntimeChecks
from .scenario import ScenarioChecks as ScenarioChecks
from .wire import WireChecks as WireChecks
