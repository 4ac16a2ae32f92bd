"""``cdi.identity.v1.IdentityRules`` ↔ the domain's rules: for the request, the answer, and the document that is stored."""

from __future__ import annotations

from cdi.identity.v1 import rules_pb2
from cdi_identity.domain.rules import MAX_IDENTIFIERS, MAX_MERGES, Rules, TypeRule, Window
from cdi_kernel.faults import InvalidArgument


def rules(message: rules_pb2.IdentityRules) -> Rules:
    """The rules of a message; what it leaves out takes the defaults.

    Raises:
        InvalidArgument: a window is none that this version knows.
    """
    return Rules(
        types=tuple(
            TypeRule(rule.type, rule.limit, _window(rule), rule.priority, rule.unique, tuple(rule.paths), rule.disabled)
            for rule in message.identifiers
        ),
        blocked_values=frozenset(message.blocked_values),
        blocked_patterns=tuple(message.blocked_patterns),
        max_merges=message.max_merges or MAX_MERGES,
        max_identifiers=message.max_identifiers or MAX_IDENTIFIERS,
        event_traits=tuple(message.event_traits),
        version=message.version,
    )


def message(workspace_id: str, given: Rules) -> rules_pb2.IdentityRules:
    """The message of rules, with the defaults of the caps filled in."""
    return rules_pb2.IdentityRules(
        workspace_id=workspace_id,
        identifiers=[
            rules_pb2.IdentifierRule(
                type=rule.type,
                limit=rule.limit,
                window=rules_pb2.LimitWindow.ValueType(rule.window),
                priority=rule.priority,
                unique=rule.unique,
                paths=rule.paths,
                disabled=rule.disabled,
            )
            for rule in given.types
        ],
        blocked_values=sorted(given.blocked_values),
        blocked_patterns=given.blocked_patterns,
        max_merges=given.max_merges,
        max_identifiers=given.max_identifiers,
        event_traits=given.event_traits,
        version=given.version,
    )


def _window(rule: rules_pb2.IdentifierRule) -> Window:
    try:
        return Window(rule.window or Window.EVER)
    except ValueError as error:
        raise InvalidArgument("the rules are not valid", field_violations=[("rules.identifiers.window", "unknown")]) from error
