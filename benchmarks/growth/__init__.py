"""How each cost grows with members, rooms, events, devices and destinations."""
