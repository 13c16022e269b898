"""Whether an input may be sent: the operator's word list, installed packages, a moderation service.

Open `moderation` first, which asks them in order and makes one ruling; `moderators` says which there are.
It must not know jobs, nor what becomes of one that is blocked.
"""
