"""What is remembered of events does not hold the content of large messages."""

from typing import Any

from paceline.clock import ManualClock
from paceline.engine.events import EventBus
from paceline.engine.figures import Figures
from paceline.engine.happenings import Happenings
from tests.contracts.stores.making import message
