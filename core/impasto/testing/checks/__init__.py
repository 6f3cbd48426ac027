"""The checks of a model, by subject."""

from .declaration import DeclarationChecks as DeclarationChecks
from .entrances import ProcessChecks as ProcessChecks
from .isolation import IsolationChecks as IsolationChecks
from .job import JobChecks as JobChecks
from .live import LiveChecks as LiveChecks
from .parameter import ParameterChecks as ParameterChecks
from .runtime import RuntimeChecks as RuntimeChecks
from .scenario import ScenarioChecks as ScenarioChecks
from .stream import StreamChecks as StreamChecks
