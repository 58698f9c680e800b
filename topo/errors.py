"""The project's exceptions: one tree, one root.

::

    QntnError                      exit 1   whatever went wrong, in one line
    ├── InputError                 exit 2   the user's input cannot be used; names the place and the remedy
    │   ├── ScenarioError          exit 2   a scenario file: the file, the key, what is wrong
    │   └── FeatureMissing         exit 2   the machine lacks something: its name and how to get it
    ├── SubstrateError             exit 1   the kernel that runs the network failed
    │   └── GuestFailed            exit 1   panic, hang or failed step inside; carries the console log
    ├── NetworkError               exit 1   the network is not what the plan says
    ├── ProtocolError              exit 1   bytes that the protocol forbids
    │   ├── EspError               exit 1   an ESP packet refused
    │   │   └── EspRefused         exit 1   the same, and why (`gateways.esp`)
    │   ├── BadBody                exit 1   an HTTP body that cannot be read to its end (`kms.server`)
    │   └── ControlError           exit 1   a gateway's IKE message refused
    │       ├── UnknownPayload     exit 1   a critical payload of unknown type (`gateways.ike.payloads`)
    │       ├── ExchangeFailed     exit 1   an IKE exchange ended in vain (`gateways.ike.tasks`)
    │       └── Refused            exit 1   an IKE request to be answered with an error (`gateways.ike.tasks`)
    ├── KeySupplyError             exit 1   no key where one is needed
    │   ├── NoKeyFromPass          exit 1   a quantum pass yielded no key, and why
    │   ├── LedgerError            exit 1   the key ledger refuses
    │   │   ├── LedgerUntrusted    exit 1   its files were changed or rolled back from outside (`kms.vault`)
    │   │   ├── PoolExhausted      exit 1   fewer keys in store than asked for (`kms.places`)
    │   │   └── KeyNotFound        exit 1   no such key for this pair, or delivered (`kms.places`)
    │   └── KmsRefused             exit 1   a KMS answered 400, 401 or 503
    │       └── Refusal            exit 1   the same, at the KMS that answers (`kms.api`)
    └── MeasurementError           exit 1   an experiment ended without a usable result

The command line turns any of these into one line on standard error and the exit code of its class.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class QntnError(Exception):
    """Whatever went wrong, said in one line."""

    exit_code: ClassVar[int] = 1


class InputError(QntnError):
    """The user's input cannot be used; the message names the place and the remedy."""

    exit_code = 2


class ScenarioError(InputError):
    """A scenario file that cannot be used.

    `path` is the file, `key` the dotted key in it, `reason` what is wrong and what would be right.
    """

    def __init__(self, path: Path | str, key: str, reason: str) -> None:
        self.path, self.key, self.reason = path, key, reason
        super().__init__(f"{path}: {key}: {reason}" if key else f"{path}: {reason}")


class FeatureMissing(InputError):
    """The machine lacks something this run needs: `feature` by its name, `remedy` how to get it."""

    def __init__(self, feature: str, remedy: str) -> None:
        self.feature, self.remedy = feature, remedy
        super().__init__(f"missing: {feature}. {remedy}")


class SubstrateError(QntnError):
    """The kernel that runs the network failed."""


class GuestFailed(SubstrateError):
    """A panic, a hang or a failed step inside the guest kernel; `console` is its console log."""

    def __init__(self, reason: str, console: Path | None = None) -> None:
        self.reason, self.console = reason, console
        super().__init__(f"{reason} (console log: {console})" if console else reason)


class NetworkError(QntnError):
    """The network is not what the plan says: a netlink call failed or a read-back differs."""


class ProtocolError(QntnError):
    """Bytes that the protocol forbids."""


class EspError(ProtocolError):
    """An ESP packet refused."""


class ControlError(ProtocolError):
    """A gateway control message refused."""


class KeySupplyError(QntnError):
    """No key where one is needed."""


class NoKeyFromPass(KeySupplyError):
    """A quantum pass yielded no key; the message says why."""


class LedgerError(KeySupplyError):
    """The key ledger refuses."""


class KmsRefused(KeySupplyError):
    """A KMS answered with an error: `status` is the HTTP code, the message its text."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"KMS answered {status}: {message}")


class MeasurementError(QntnError):
    """An experiment ended without a usable result."""
