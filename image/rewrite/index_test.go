package rewrite

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const indexText = `{
   "schemaVersion": 2,
   "mediaType": "application/vnd.oci.image.index.v1+json",
   "x-vendor": {"b": 1.0, "a": "é"},
   "manifests": [
      {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:aaaa","size":1,"data":"e30=","platform":{"architecture":"amd64","os":"linux","os.version":"10.0"},"annotations":{"k":"v"}},
      { "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2, "digest": "sha256:bbbb", "platform": {"architecture": "arm", "variant": "v7", "os": "linux"} },
      {"digest":"sha256:cccc","size":3,"platform":{"os":"unknown","architecture":"unknown"}}
   ],
   "annotations": {"org.example": "<kept>"}
}
`

func TestIndex(t *testing.T) {
	content := []byte(`{"new":true}`)
	d := descriptor(content)
	changed := fmt.Sprintf(`"digest":"%s","size":%d,"platform"`, d.Digest, d.Size)
	for _, tc := range []struct {
		name     string
		children map[int]Child
		want     string
	}{
		{"nothing", nil, indexText},
		{
			"change the first, drop the last",
			map[int]Child{0: {Content: content}, 2: {Drop: true}},
			strings.Replace(strings.Replace(indexText, `"digest":"sha256:aaaa","size":1,"data":"e30=","platform"`, changed, 1),
				`,
      {"digest":"sha256:cccc","size":3,"platform":{"os":"unknown","architecture":"unknown"}}`, "", 1),
		},
		{
			"drop the first, change another with its spelling",
			map[int]Child{0: {Drop: true}, 1: {Content: content}},
			indexText[:strings.Index(indexText, `{"mediaType":"application/vnd.oci.image.manifest`)] +
				strings.NewReplacer(`"size": 2`, fmt.Sprintf(`"size": %d`, d.Size), "sha256:bbbb", d.Digest.String()).
					Replace(indexText[strings.Index(indexText, `{ "mediaType"`):]),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, subject, err := Index([]byte(indexText), tc.children)
			if err != nil || subject != nil {
				t.Fatal(subject, err)
			}
			if string(got) != tc.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tc.want)
			}
			if !json.Valid(got) {
				t.Error("not JSON any more")
			}
		})
	}
}

func TestIndexSubject(t *testing.T) {
	const text = `{"manifests":[{"digest":"sha256:aaaa","size":1}],"subject":{"mediaType":"m","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":7},"z":1}`
	got, subject, err := Index([]byte(text), map[int]Child{0: {Content: []byte("{}")}})
	if err != nil {
		t.Fatal(err)
	}
	if subject == nil || subject.Size != 7 || strings.Contains(string(got), "subject") || !strings.HasSuffix(string(got), `],"z":1}`) {
		t.Errorf("subject %v, index %s", subject, got)
	}
	// What is not changed keeps it.
	if got, subject, err = Index([]byte(text), nil); err != nil || subject != nil || string(got) != text {
		t.Errorf("subject %v, index %s, %v", subject, got, err)
	}
}

func TestIndexErrors(t *testing.T) {
	edit := map[int]Child{0: {Content: []byte("{}")}}
	for text, want := range map[string]string{
		`[]`:                                   "index is an array, not an object",
		`{"manifests":{}}`:                     "manifests is an object",
		`{"manifests":[]}`:                     "fewer descriptors",
		`{"manifests":[1]}`:                    "descriptor 0 is a number",
		`{"manifests":[],"Manifests":[]}`:      `has the key "manifests" twice`,
		`{"manifests":[{"size":1,"Size":2}]}`:  `has the key "size" twice`,
		`{"manifests":[{}],"subject":"other"}`: "subject is not a descriptor",
	} {
		if _, _, err := Index([]byte(text), edit); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(indexText), 0, 1)
	f.Add([]byte(`{"manifests":[{},{}]}`), 1, 0)
	f.Fuzz(func(t *testing.T, raw []byte, change, drop int) {
		content := []byte(`{"a":1}`)
		got, _, err := Index(raw, map[int]Child{change: {Content: content}, drop: {Drop: true}})
		if err != nil {
			return
		}
		var before, after v1.IndexManifest
		if json.Unmarshal(raw, &before) != nil {
			return
		}
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("%s became %s: %v", raw, got, err)
		}
		if len(after.Manifests) != len(before.Manifests)-1 {
			t.Errorf("%d descriptors became %d", len(before.Manifests), len(after.Manifests))
		}
		at := change
		if drop < change {
			at--
		}
		if change != drop && after.Manifests[at].Size != int64(len(content)) {
			t.Errorf("descriptor %d of %s is not changed", change, got)
		}
	})
}
