"""Training: options, recipes, the loop, resumable state, metrics and learning curves.

Read `task.py` (what is trained), `recipes.py` (with which hyper-parameters) and `loop.py` (how) in this order.
"""
