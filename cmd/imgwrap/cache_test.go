package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// forgetLayers deletes the blobs of an image's layers from the registry.
func forgetLayers(ts *testscript.TestScript, _ bool, args []string) {
	m, err := pull(ts, args[0]).Manifest()
	ts.Check(err)
	host, rest, _ := strings.Cut(args[0], "/")
	repository, _, _ := strings.Cut(rest, ":")
	for _, l := range m.Layers {
		req, err := http.NewRequest(http.MethodDelete, "http://"+host+"/v2/"+repository+"/blobs/"+l.Digest.String(), nil)
		ts.Check(err)
		resp, err := http.DefaultClient.Do(req)
		ts.Check(err)
		ts.Check(resp.Body.Close())
		if resp.StatusCode != http.StatusAccepted {
			ts.Fatalf("deleting layer %s: %s", l.Digest, resp.Status)
		}
	}
}

func TestByteSize(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "1": "1", "1000": "1K", "1500K": "1500K", "2g": "2G", "500m": "500M", "500000000": "500M",
		"9223372036854775807": "9223372036854775807", "9223372036G": "9223372036G",
		"": "", "K": "", "-1": "", "1.5G": "", "1KB": "", "1KK": "", "M1": "", "9223372037G": "",
	} {
		var s byteSize
		if err := s.Set(in); (err != nil) != (want == "") || err == nil && s.String() != want {
			t.Errorf("%q: got %s, %v; want %q", in, &s, err, want)
		}
	}
}
