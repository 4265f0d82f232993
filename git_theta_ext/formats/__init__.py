"""Containers: each module turns a file into a layout that tiles it; none of them writes."""
