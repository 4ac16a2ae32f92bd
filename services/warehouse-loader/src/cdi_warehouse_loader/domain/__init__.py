"""What a row is: names, types, flattening, the plan of a load. Pure: the catalog and the time are arguments.

Deliberately absent: SQL. A plan says what a warehouse should hold afterwards; ``warehouses/`` says it in the warehouse's words.
"""
