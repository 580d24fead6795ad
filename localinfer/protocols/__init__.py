"""How requests and answers of other programs are spelled: bodies read, answers written, whoever brings them."""
