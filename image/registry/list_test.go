package registry

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/image/registry/registrytest"
)

func (s *server) parse(t *testing.T, c *Client, ref string) Reference {
	t.Helper()
	r, err := c.ParseReference(s.host() + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDigest(t *testing.T) {
	s := newServer(t)
	want, err := s.putImage(t, "app:1").Digest()
	if err != nil {
		t.Fatal(err)
	}
	c := s.client(Options{})
	for _, ref := range []string{"app:1", "app@" + want.String(), "app:gone@" + want.String()} {
		if got, err := c.Digest(t.Context(), s.parse(t, c, ref)); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", ref, got, err, want)
		}
	}
	wantRequests(t, s, map[string]int{"GET ping": 1, "HEAD manifests": 3})

	other := "sha256:" + strings.Repeat("0", 64)
	for _, ref := range []string{"app:2", "other:1", "app@" + other, "app:1@" + other} {
		_, err := c.Digest(t.Context(), s.parse(t, c, ref))
		if !IsNotFound(err) || IsDenied(err) || err.Error() != fmt.Sprintf("asking for %s/%s: %[1]s has no such image (404 Not Found)", s.host(), ref) {
			t.Errorf("%s: got %v", ref, err)
		}
	}

	for name, head := range map[string]func(http.ResponseWriter){
		"without digest": func(w http.ResponseWriter) {},
		"not served":     func(w http.ResponseWriter) { w.WriteHeader(http.StatusMethodNotAllowed) },
	} {
		t.Run(name, func(t *testing.T) {
			s.forget()
			s.fault = func(w http.ResponseWriter, r *http.Request, kind string) bool {
				if kind == "HEAD manifests" {
					head(w)
				}
				return kind == "HEAD manifests"
			}
			defer func() { s.fault = nil }()
			for _, ref := range []string{"app:1", "app@" + want.String()} {
				if got, err := c.Digest(t.Context(), s.parse(t, c, ref)); err != nil || got != want {
					t.Errorf("%s: %s, %v; want %s", ref, got, err, want)
				}
			}
			wantRequests(t, s, map[string]int{"HEAD manifests": 2, "GET manifests": 2})
			if _, err := c.Digest(t.Context(), s.parse(t, c, "app:2")); !IsNotFound(err) {
				t.Errorf("got %v", err)
			}
		})
	}
	for status, denied := range map[int]bool{401: true, 403: true, 418: false} {
		s.fault = func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			w.WriteHeader(status)
			return true
		}
		if _, err := c.Digest(t.Context(), s.parse(t, c, "app:1")); err == nil || IsNotFound(err) || IsDenied(err) != denied {
			t.Errorf("%d: got %v", status, err)
		}
	}
	if _, err := c.Digest(t.Context(), mustParse(t, c, "oci:"+t.TempDir())); err == nil || IsNotFound(err) || strings.Count(err.Error(), "\n") > 0 {
		t.Errorf("of a directory: %v", err)
	}
}

func mustParse(t *testing.T, c *Client, ref string) Reference {
	t.Helper()
	r, err := c.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPinnedToDigest(t *testing.T) {
	s := newServer(t)
	first, err := s.putImage(t, "app:1").Digest()
	if err != nil {
		t.Fatal(err)
	}
	s.putImage(t, "app:1")
	if im := s.open(t, s.client(Options{}), "app:1@"+first.String()); im.Digest != first {
		t.Errorf("opened %s instead of %s", im.Digest, first)
	}
}

// pages answers with the pages of a list: link has the URL of the next one.
func pages(key string, link func(next int) string, pages ...string) func(http.ResponseWriter, *http.Request, string) bool {
	return func(w http.ResponseWriter, r *http.Request, kind string) bool {
		if kind != "GET tags" && kind != "GET catalog" {
			return false
		}
		var page int
		if _, err := fmt.Sscanf(r.URL.Query().Get("last"), "%d", &page); err == nil {
			page++
		}
		if page+1 < len(pages) {
			w.Header().Set("Link", link(page))
		}
		fmt.Fprintf(w, `{"name":"app",%q:%s}`, key, pages[page])
		return true
	}
}

func TestTags(t *testing.T) {
	s := newServer(t)
	c := s.client(Options{})
	list := []string{`["1","2"]`, `["3"]`, `null`, `["4"]`}
	for name, link := range map[string]func(int) string{
		"relative":         func(page int) string { return fmt.Sprintf(`</v2/team/app/tags/list?last=%d&n=2>; rel="next"`, page) },
		"relative to page": func(page int) string { return fmt.Sprintf(`<list?last=%d>;rel=next`, page) },
		"query alone":      func(page int) string { return fmt.Sprintf(`<?last=%d>; title="a"; rel="next"`, page) },
		"absolute": func(page int) string {
			return fmt.Sprintf(`<%s/v2/team/app/tags/list?last=%d>; rel="next"`, s.URL, page)
		},
		"of another host": func(page int) string {
			return fmt.Sprintf(`<https://user@internal.test/v2/team/app/tags/list?last=%d>; rel="next"`, page)
		},
		"one of several": func(page int) string {
			return fmt.Sprintf(`</v2/team/app/tags/list>; rel="first", <list?last=%d>; rel="next"`, page)
		},
	} {
		s.fault = pages("tags", link, list...)
		got, err := c.Tags(t.Context(), s.host()+"/team/app")
		if err != nil || !slices.Equal(got, []string{"1", "2", "3", "4"}) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}

	for _, tt := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		want   string // error
	}{
		{"no tags", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"name":"app","tags":null}`) }, ""},
		{"smaller pages", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("n") {
				registrytest.Deny(w, 400, "PAGINATION_NUMBER_INVALID")
				return
			}
			fmt.Fprint(w, `{"tags":[]}`)
		}, ""},
		{"no end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", `<?last=1>; rel="next"`)
			fmt.Fprint(w, `{"tags":["1"]}`)
		}, "list has no end"},
		{"no list", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `<html>`) }, "list is not valid"},
		{"always 400", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) }, "answered 400 Bad Request"},
		{"no repository", func(w http.ResponseWriter, _ *http.Request) { registrytest.Deny(w, 404, "NAME_UNKNOWN") }, "has no repository team/app (404 NAME_UNKNOWN)"},
		{"cut", func(w http.ResponseWriter, _ *http.Request) {
			cut(w, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
		}, "broke the connection"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.fault = func(w http.ResponseWriter, r *http.Request, kind string) bool {
				if kind == "GET tags" {
					tt.answer(w, r)
				}
				return kind == "GET tags"
			}
			got, err := c.Tags(t.Context(), s.host()+"/team/app")
			switch {
			case tt.want == "":
				if err != nil || len(got) > 0 {
					t.Errorf("%v, %v", got, err)
				}
			case err == nil || !strings.HasPrefix(err.Error(), "listing the tags of "+s.host()+"/team/app: ") ||
				!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n"):
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if want := tt.name == "no repository"; IsNotFound(err) != want {
				t.Errorf("not found: %t", !want)
			}
		})
	}
	for _, repository := range []string{"", "app:1", "Team/App", s.host()} {
		if _, err := c.Tags(t.Context(), repository); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %v", repository, err)
		}
	}
}

func TestRepositories(t *testing.T) {
	s := newServer(t)
	c := s.client(Options{})
	s.fault = pages("repositories", func(page int) string {
		return fmt.Sprintf(`</v2/_catalog?last=%d>; rel="next"`, page)
	}, `["a/b","c"]`, `["d"]`)
	got, err := c.Repositories(t.Context(), s.host())
	if err != nil || !slices.Equal(got, []string{"a/b", "c", "d"}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, tt := range []struct {
		registry     string
		status       int
		code         string
		reason, hint string
	}{
		{"docker.io", 0, "", "index.docker.io does not list its repositories", "name each repository, without *"},
		{"ghcr.io", 0, "", "ghcr.io does not list its repositories", "name each repository, without *"},
		{"public.ecr.aws", 0, "", "public.ecr.aws does not list its repositories", "name each repository, without *"},
		{"no registry", 0, "", "it is not the name of a registry", "registry.example.com"},
		{s.host(), 401, "UNAUTHORIZED", s.host() + " does not list its repositories to this account (401 Unauthorized)", "docker login " + s.host()},
		{s.host(), 403, "DENIED", s.host() + " does not list its repositories to this account (403 Forbidden)", "without *"},
		{s.host(), 404, "", s.host() + " does not list its repositories (404 Not Found)", "name each repository, without *"},
		{s.host(), 405, "UNSUPPORTED", s.host() + " does not list its repositories (405 Method Not Allowed)", "name each repository, without *"},
		{s.host(), 500, "", s.host() + " answered 500", "try again later"},
	} {
		s.fault = func(w http.ResponseWriter, r *http.Request, kind string) bool {
			if kind != "GET catalog" {
				return false
			}
			registrytest.Deny(w, tt.status, tt.code)
			return true
		}
		_, err := c.Repositories(t.Context(), tt.registry)
		e, ok := err.(*Error)
		if !ok || !strings.HasPrefix(e.Error(), "listing the repositories of "+tt.registry+": "+tt.reason) || !strings.Contains(e.Hint(), tt.hint) {
			t.Errorf("%s, %d: got %v", tt.registry, tt.status, err)
		}
	}
}

// The catalog has a scope of its own.
func TestRepositoriesScope(t *testing.T) {
	s := newServer(t)
	s.fault = func(w http.ResponseWriter, r *http.Request, kind string) bool {
		switch {
		case kind == "GET token":
			fmt.Fprintf(w, `{"token":%q}`, r.URL.Query().Get("scope"))
			return true
		case r.Header.Get("Authorization") == "Bearer registry:catalog:*":
			fmt.Fprint(w, `{"repositories":["app"]}`)
			return true
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, s.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	got, err := s.client(Options{}).Repositories(t.Context(), s.host())
	if err != nil || !slices.Equal(got, []string{"app"}) {
		t.Errorf("%v, %v", got, err)
	}
}
