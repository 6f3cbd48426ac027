"""The checks of a model, by subject."""

from .declaration import DeclarationChecks as DeclarationChecks
from .entrance import EntranceChecks as EntranceChecks
from .isolation import IsolationChecks as IsolationChecks
from .job import JobChecks as JobChecks
from .live import LiveChecks as LiveChecks
from .parameter import ParameterChecks as ParameterChecks
from .runtime import RuntimeChecks as RuntimeChecks
from .scenario import ScenarioChecks as ScenarioChecks
from .stream import StreamChecks as StreamChecks
