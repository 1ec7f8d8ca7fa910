"""The learning rate of every step of a recipe."""

from __future__ import annotations

import math

from benchmark.plan.task import Recipe


def rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimiser step number `step`, counted from 0 over the whole training.

    Recipes are cut to fewer epochs at small scales; a warm-up that would be longer than the training then fills it.
    """
    warm_steps = min(recipe.warmup_epochs, recipe.epochs) * steps_per_epoch
    if step < warm_steps:
        return recipe.lr * (step + 1) / warm_steps
    if recipe.schedule == "multistep":
        epoch = step // steps_per_epoch
        passed = sum(epoch >= max(1, round(fraction * recipe.epochs)) for fraction in recipe.milestones)
        return recipe.lr * recipe.gamma**passed
    if recipe.schedule == "onecycle":
        total = recipe.epochs * steps_per_epoch
        rise = max(1.0, recipe.warmup * total)
        return recipe.lr * (min((step + 1) / rise, 1.0) if step < rise else (total - step) / (total - rise))
    if recipe.schedule in ("cosine", "cosine_step"):
        left = recipe.epochs * steps_per_epoch - warm_steps
        done = step - warm_steps
        if recipe.schedule == "cosine":
            done -= done % steps_per_epoch
        return recipe.final_lr + (recipe.lr - recipe.final_lr) * (1 + math.cos(math.pi * done / left)) / 2
    return recipe.lr
