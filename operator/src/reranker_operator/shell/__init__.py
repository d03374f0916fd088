"""kopf's place: it watches and translates events to keys. No logic lives here."""
