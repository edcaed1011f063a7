"""Routes of the Django half: admin, sign-in, and the pages. The wire protocols are mounted beside it, in asgi.py."""

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

from controlplane.sign_in import slowed_down

urlpatterns = [
    path("admin/login/", slowed_down(admin.site.login)),  # before the admin's own of that address
    path("admin/", admin.site.urls),
    path("login/", slowed_down(auth_views.LoginView.as_view(redirect_authenticated_user=True)), name="login"),
    path("logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("favicon.ico", RedirectView.as_view(url=static("img/icon.svg"))),  # pages without a link to it ask here
    path("control/v1/", include("controlplane.api.urls")),
    path("", include("dashboard.urls")),
]
