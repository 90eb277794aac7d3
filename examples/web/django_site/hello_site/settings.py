"""What the site needs to know."""

import os

SECRET_KEY = os.environ.get("SECRET_KEY", "only for an example")
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "hello_site.urls"
USE_TZ = True
