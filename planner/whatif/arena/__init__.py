"""The arena: a set of cases under a set of policies, and what came of it as a table, figures and a page."""
