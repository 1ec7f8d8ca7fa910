"""The learning rate of every step of a recipe."""

from __future__ import annotations

from benchmark.plan.task import Recipe


def rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimiser step number `step`, counted from 0 over the whole training."""
    if recipe.schedule == "multistep":
        epoch = step // steps_per_epoch
        passed = sum(epoch >= max(1, round(fraction * recipe.epochs)) for fraction in recipe.milestones)
        return recipe.lr * recipe.gamma**passed
    if recipe.schedule == "onecycle":
        total = recipe.epochs * steps_per_epoch
        rise = max(1.0, recipe.warmup * total)
        return recipe.lr * (min((step + 1) / rise, 1.0) if step < rise else (total - step) / (total - rise))
    return recipe.lr
