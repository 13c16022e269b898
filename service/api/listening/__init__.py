"""The server: connections with deadlines and bounds, and a listening socket that outlives its process.

Open `listener` first; `connection` is one of its connections, `admission` says who may be connected, `refusals` what is told to a request that
never reaches the application, `handover` passes the socket on. It must not know the API's routes or what the service does.
"""
