"""The audit's commands, one module a rule."""
