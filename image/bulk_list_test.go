package image

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/imgwrap/imgwrap/image/bulk"
	"github.com/imgwrap/imgwrap/image/registry"
)

// An image that no worker may see is left to the one that it belongs to; what may be
// different for the next worker ends the description.
func TestDescribeUnseen(t *testing.T) {
	var status int
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			w.WriteHeader(status)
		}
	}))
	defer s.Close()
	w := &Wrapper{Registry: registry.New(registry.Options{Keychain: authn.NewMultiKeychain()}), Jobs: 2}
	for code, want := range map[int]bool{
		http.StatusNotFound: true, http.StatusUnauthorized: true, http.StatusForbidden: true, http.StatusTeapot: false,
	} {
		status = code
		items := []BulkItem{{Source: strings.TrimPrefix(s.URL, "http://") + "/app:1", Options: &Options{}, Entry: &bulk.Entry{}}}
		if err := w.Describe(t.Context(), items); (err == nil) != want {
			t.Errorf("%d: got %v", code, err)
		}
		if items[0].Digest != "" || items[0].Layers != nil {
			t.Errorf("%d: it stands for %+v", code, items[0])
		}
	}
}
