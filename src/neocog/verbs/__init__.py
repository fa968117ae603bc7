"""What the command line and the Python face do. Floor 5; a verb is imported when it is used."""
