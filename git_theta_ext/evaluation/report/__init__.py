"""The scores of a checkpoint's versions, said as text, tables, records and pictures."""
