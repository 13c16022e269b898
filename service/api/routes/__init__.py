"""The routes, a module for each resource of the API.

Open `jobs` first. It must not decide anything: a route reads a request, calls a use case, and answers.
"""
