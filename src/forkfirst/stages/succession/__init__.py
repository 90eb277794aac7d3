"""A reload of one process without a supervisor: it makes its successor, hands over, and drains.

Loaded only when somebody asks for a reload, and in the successor.
"""
