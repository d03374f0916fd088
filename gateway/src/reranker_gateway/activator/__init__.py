"""The activator: takes requests while no pod serves, and hands them on to the first that does.

    server ─▶ app, grpc: whose request it is, and whether it may wake the service
                └▶ hold: until a pod answers ready, in order, within bounds
                     └▶ backend: the same request, to a pod

Bodies are bytes here, so every API is served by the same few lines; of an API only its paths and
the form of its errors matter. A GET never wakes the service.
"""
