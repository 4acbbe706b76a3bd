"""Client keys that are issued here: who may call, what each may use, spend and ask for in a minute."""
