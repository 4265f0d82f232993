"""`low-rank`: predicts that the product of two thin matrices was added, as merging LoRA does.

Hu and others, "LoRA: Low-Rank Adaptation of Large Language Models", 2021. `update` is the kind
itself; `factors` are what it stores and `prediction` what they make of the old values. Where
nobody says what the factors are, `fit` finds them from what `observation` sees, starting from the
`directions` that stand out, and `precision` rounds them as it pays.
"""
