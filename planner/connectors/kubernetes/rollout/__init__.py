"""Changing the layout of a pool: a second object beside the first, its workers up, then the other's down.

The steps are `planner.core.transition`'s; here is what they are made of on a cluster: the copied object (`clone`), the
recorded intent (`store`), what is seen of both sides (`sides`), and carrying out (`run`).
"""
