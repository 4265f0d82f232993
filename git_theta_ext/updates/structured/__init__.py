"""Updates that are supplied and never sought: what an adapter's numbers make of the old values.

`kronecker` and `hadamard` add a product of two matrices, `orthogonal` rotates the rows. Their
numbers are float32, kept to the bit (`numbers`), and computed with in one fixed order (`sides`,
`rotation`), so what a supplied adapter makes and what is predicted are the same. `law` is what the
kinds share, `cost` what a reader knows of their computing before it begins.
"""
