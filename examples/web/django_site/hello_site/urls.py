"""What the site answers."""

from django.http import HttpRequest, HttpResponse
from django.urls import path


def home(_: HttpRequest) -> HttpResponse:
    """Answer one request."""
    return HttpResponse("hello from Django\n")


urlpatterns = [path("", home)]
