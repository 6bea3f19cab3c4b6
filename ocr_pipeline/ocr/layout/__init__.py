"""From the lines of a CPU engine, which have no order, to a page: lines, reading order, blocks, markdown. Pure."""
