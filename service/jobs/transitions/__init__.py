"""What follows from a fact, as pure functions: a job and what happened go in, a draft of its new row and timeline comes out.

Open `decide` first, which says which function takes which fact (`facts`): those about a request that is sent (`submission`), from
providers (`callback`, `poll`) and from callers (`caller`); `observed` is what any word about a task leads to. It must not know the
store, the clock or the network.
"""
