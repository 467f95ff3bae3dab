"""How often and how long a send is tried again: data, applied by stamina."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import stamina

from orderflow.errors import Undelivered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orderflow.settings import Settings


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff: after ``n`` failures wait ``first · factor^(n-1)``, at most ``cap``, and some jitter."""

    retries: int
    first_s: float
    factor: float
    cap_s: float
    jitter_s: float
    attempt_s: float
    deadline_s: float

    @classmethod
    def from_settings(cls, settings: Settings) -> RetryPolicy:
        """Take the policy for requests from the settings."""
        return cls(
            retries=settings.publish_retry_max,
            first_s=settings.publish_retry_first_delay_s,
            factor=settings.publish_retry_factor,
            cap_s=settings.publish_retry_max_delay_s,
            jitter_s=settings.publish_retry_jitter_s,
            attempt_s=settings.publish_attempt_timeout_s,
            deadline_s=settings.publish_deadline_s,
        )

    def attempts(self) -> Iterable[stamina.Attempt]:
        """Yield the attempts, with the delays between them."""
        return stamina.retry_context(
            on=Undelivered,
            attempts=self.retries + 1,
            timeout=self.deadline_s,
            wait_initial=self.first_s,
            wait_exp_base=self.factor,
            wait_max=self.cap_s,
            wait_jitter=self.jitter_s,
        )
