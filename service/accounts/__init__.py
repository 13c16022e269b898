"""Who may do what: accounts, their keys, and the secrets that sign for them.

Open `keys` first, which tells who asks and what the key allows; `accounts` makes and closes accounts. It must not know HTTP.
"""
