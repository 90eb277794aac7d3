"""A Django site as `django-admin startproject` makes it, and no larger than it must be.

cd examples/web/django_site; pip install 'forkfirst[uvicorn]' django
forkfirst start hello_site.asgi:application --name site --serve uvicorn --workers 2 --listen 8000
curl http://127.0.0.1:8000/
forkfirst reload site
forkfirst stop site

The same through WSGI: `hello_site.wsgi:application --serve hypercorn`.
"""
