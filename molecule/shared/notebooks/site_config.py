c = get_config()  # noqa: F821
c.JupyterHub.template_vars = {"announcement": "Maintenance on Friday"}
