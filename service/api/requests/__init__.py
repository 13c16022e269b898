"""What requests are made of: bodies, queries and headers, read strictly, and what each route says that it takes.

Open `route` first, by which a route describes itself and reads what came; `body` is the strict decoder. It must not know what a request is for.
"""
