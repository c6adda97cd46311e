"""The main job, shown: what real gunicorn workers track while things are killed, held against the bill.

`settle-mp demo` runs it; it needs the extra: `pip install 'settle-mp[demo]'`.

The modules, each importing only earlier ones: `traffic` (which requests are sent), `verdict` (answered
against billed; pure), `app` and `gunicorn_conf` (what gunicorn serves), `load` (the clients), `children`
(processes that end when the demo does), `house` (sandbox, collector and gunicorn in a folder of their own),
`bill` (what the sandbox has billed), `report` and `screen` (what is shown), `kills` (what dies, and when),
`run` (the play).
"""
