c = get_config()  # noqa: F821
c.JupyterHub.authenticator_class = "dummy"
c.Spawner.start_timeuot = 7
