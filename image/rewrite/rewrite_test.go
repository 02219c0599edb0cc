package rewrite

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func hash(hex string) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat(hex, 64)}
}

var (
	created = time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	edit    = Edit{
		Entrypoint:  []string{"opentelemetry-instrument", "/app/<run>"},
		Env:         []EnvVar{{"B", "2&2"}, {"NEW", "a=b"}},
		Labels:      map[string]string{"z.z": "1", "a.b": "2", "old.label": "new"},
		Annotations: map[string]string{"org.opencontainers.image.base.name": "app:1"},
		Created:     created,
		Layers:      []Layer{{hash("a"), 10, hash("b"), "imgwrap: bundle"}, {hash("c"), 20, hash("d"), "imgwrap: launch"}},
		Notes:       []string{"ENV NEW=a=b"},
	}
)

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in, want string
		edit     Edit
	}{{
		name: "everything",
		in: ` { "vendor.key": {"a":1,"a":2}, "created" : "2020-01-01T00:00:00Z",
  "config": {"StopTimeout": 12345678901234567890, "Env": [ "A=1",
     "B=old", "C=\u0026" ], "Cmd": ["serve"], "Healthcheck": {"StartInterval": 1e9},
     "Entrypoint": ["/app/\u003crun\u003e"], "Labels": {"old.label": "was", "keep\u002eme": "\/"}},
  "rootfs": {"type": "layers", "diff_ids": ["sha256:1", "sha256:2" ]},
  "history": [{"created_by": "x"}, {"empty_layer": true, "extra": 1.0}, {}]
}
`,
		edit: edit,
		want: ` { "vendor.key": {"a":1,"a":2}, "created" : "2026-03-04T04:06:07Z",
  "config": {"StopTimeout": 12345678901234567890, "Env": [ "A=1",
     "B=2&2", "C=\u0026","NEW=a=b" ], "Cmd": ["serve"], "Healthcheck": {"StartInterval": 1e9},
     "Entrypoint": ["opentelemetry-instrument","/app/\u003crun\u003e"], "Labels": {"old.label": "new", "keep\u002eme": "\/","a.b":"2","z.z":"1"}},
  "rootfs": {"type": "layers", "diff_ids": ["sha256:1", "sha256:2","sha256:` + strings.Repeat("b", 64) + `","sha256:` + strings.Repeat("d", 64) + `" ]},
  "history": [{"created_by": "x"}, {"empty_layer": true, "extra": 1.0}, {},{"created":"2026-03-04T04:06:07Z","created_by":"imgwrap: bundle"},{"created":"2026-03-04T04:06:07Z","created_by":"imgwrap: launch"},{"created":"2026-03-04T04:06:07Z","created_by":"ENV NEW=a=b","empty_layer":true}]
}
`,
	}, {
		name: "null and absent",
		in:   `{"config":{"Env":null,"Labels":null,"Entrypoint":null},"rootfs":{"diff_ids":["sha256:1"]},"history":null}`,
		edit: Edit{Entrypoint: []string{"e"}, Env: []EnvVar{{"A", ""}}, Labels: map[string]string{"l": ""}, Created: created, Notes: []string{"note"}},
		want: `{"config":{"Env":["A="],"Labels":{"l":""},"Entrypoint":["e"]},"rootfs":{"diff_ids":["sha256:1"]},"history":null,"created":"2026-03-04T04:06:07Z"}`,
	}, {
		name: "no config",
		in:   `{"rootfs":{"diff_ids":["sha256:1"]},"config":null}`,
		edit: Edit{Env: []EnvVar{{"A", "1"}, {"A", "2"}}},
		want: `{"rootfs":{"diff_ids":["sha256:1"]},"config":{"Env":["A=2"]}}`,
	}, {
		name: "history does not match",
		in:   `{"rootfs":{"diff_ids":["sha256:1","sha256:2"]},"history":[{},{"empty_layer":true}]}`,
		edit: Edit{Notes: []string{"note"}},
		want: `{"rootfs":{"diff_ids":["sha256:1","sha256:2"]},"history":[{},{"empty_layer":true}]}`,
	}, {
		name: "nothing",
		in:   `{"rootfs":{"diff_ids":["sha256:1"]},"history":[{}],"config":{}}`,
		want: `{"rootfs":{"diff_ids":["sha256:1"]},"history":[{}],"config":{}}`,
	}, {
		name: "variable set twice",
		in:   `{"rootfs":{"diff_ids":["sha256:1"]},"config":{"Env":["A=1","B","A=2","AA=1"]}}`,
		edit: Edit{Env: []EnvVar{{"A", "3"}, {"B", "3"}}},
		want: `{"rootfs":{"diff_ids":["sha256:1"]},"config":{"Env":["A=3","B=3","A=3","AA=1"]}}`,
	}, {
		name: "other spelling of a field",
		in:   `{"RootFS":{"diff_ids":["sha256:1"]},"Config":{"env":["A=1"]}}`,
		edit: Edit{Env: []EnvVar{{"A", "2"}}},
		want: `{"RootFS":{"diff_ids":["sha256:1"]},"Config":{"env":["A=2"]}}`,
	}, {
		name: "arguments that do not decode",
		in:   `{"rootfs":{"diff_ids":["sha256:1"]},"config":{"Entrypoint":["x","\ud800","y"]}}`,
		edit: Edit{Entrypoint: []string{"wrap", "x", "\ufffd", "y"}},
		want: `{"rootfs":{"diff_ids":["sha256:1"]},"config":{"Entrypoint":["wrap","x","\ud800","y"]}}`,
	}, {
		name: "entry point emptied",
		in:   `{"rootfs":{"diff_ids":["sha256:1"]},"config":{"Entrypoint":["x"]}}`,
		edit: Edit{Entrypoint: []string{}},
		want: `{"rootfs":{"diff_ids":["sha256:1"]},"config":{"Entrypoint":[]}}`,
	}} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Config([]byte(tt.in), tt.edit)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestBuiltConfig(t *testing.T) {
	in := `{"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:1"]},"history":[{"created_by":"base"}, {"empty_layer":true}],"config":{"Env":["A=1"]}}`
	e := edit
	e.Labels, e.Created = nil, time.Time{}
	want := `{"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:1"]},"history":[{"created_by":"base"}, {"empty_layer":true},{"created_by":"imgwrap: bundle"},{"created_by":"imgwrap: launch"},{"created_by":"ENV NEW=a=b","empty_layer":true}],"config":{"Env":["A=1","B=2&2","NEW=a=b"],"Entrypoint":["opentelemetry-instrument","/app/<run>"]}}`
	got, err := BuiltConfig([]byte(in), e)
	if err != nil || string(got) != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, got, want)
	}
	// Without layers or a history: so does one begin that is made of nothing.
	e.Entrypoint, e.Env, e.Created = nil, nil, created
	got, err = BuiltConfig([]byte(`{"rootfs":{"type":"layers"}}`), e)
	want = `{"rootfs":{"type":"layers"},"history":[{"created":"2026-03-04T04:06:07Z","created_by":"imgwrap: bundle"},{"created":"2026-03-04T04:06:07Z","created_by":"imgwrap: launch"},{"created":"2026-03-04T04:06:07Z","created_by":"ENV NEW=a=b","empty_layer":true}],"created":"2026-03-04T04:06:07Z"}`
	if err != nil || string(got) != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, got, want)
	}
	for _, bad := range []string{"", "null", `{"history":{}}`, `{"history":[1]}`, `{"config":[]}`} {
		if got, err := BuiltConfig([]byte(bad), edit); err == nil {
			t.Errorf("%s became %s", bad, got)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for in, want := range map[string]string{
		``:                           "config is not JSON: unexpected end of JSON input",
		`{"a":}`:                     "config is not JSON: invalid character '}' looking for beginning of value",
		`{} {}`:                      "config is not JSON: invalid character '{' after top-level value",
		"\xef\xbb\xbf{}":             "config starts with a byte order mark, which JSON does not allow",
		`[]`:                         "config is an array, not an object",
		`"x"`:                        "config is a string, not an object",
		`null`:                       "config is null, not an object",
		`{"x":1,"\u0078":2}`:         `config has the key "x" twice`,
		`{"rootfs":{},"RootFS":{}}`:  `config has the key "rootfs" twice`,
		`{}`:                         "config: rootfs has no diff_ids",
		`{"rootfs":7}`:               "config: rootfs is a number, not an object",
		`{"rootfs":{"diff_ids":{}}}`: "config: rootfs.diff_ids is an object, not an array",
		`{"rootfs":{"diff_ids":["x"]},"history":{}}`:                        "config: history is an object, not an array",
		`{"rootfs":{"diff_ids":["x"]},"history":[1]}`:                       "config: history holds 1, which is not an entry",
		`{"rootfs":{"diff_ids":["x"]},"config":[]}`:                         "config: config is an array, not an object",
		`{"rootfs":{"diff_ids":["x"]},"config":{"Env":[],"env":[]}}`:        `config: config has the key "Env" twice`,
		`{"rootfs":{"diff_ids":["x"]},"config":{"Env":"A=1"}}`:              "config: config.Env is a string, not an array",
		`{"rootfs":{"diff_ids":["x"]},"config":{"Env":["A=1",null]}}`:       "config: config.Env holds null, which is not a string",
		`{"rootfs":{"diff_ids":["x"]},"config":{"Entrypoint":true}}`:        "config: config.Entrypoint is a boolean, not an array",
		`{"rootfs":{"diff_ids":["x"]},"config":{"Labels":{"a":"","a":""}}}`: `config: config.Labels has the key "a" twice`,
	} {
		got, err := Config([]byte(in), edit)
		if err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", in, got, err, want)
		}
	}
}

func TestManifest(t *testing.T) {
	config := []byte(`{}`)
	const configDigest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	layers := `{"mediaType":"TYPE","size":10,"digest":"sha256:` + hash("a").Hex + `"},{"mediaType":"TYPE","size":20,"digest":"sha256:` + hash("c").Hex + `"}`
	for _, tt := range []struct {
		name      string
		mediaType types.MediaType
		in, want  string
		subject   string
	}{{
		name:      "oci",
		mediaType: types.OCIManifestSchema1,
		in: `{
  "schemaVersion": 2.0, "artifactType": "x/y",
  "config": {"mediaType":"m", "digest":"sha256:0", "size":1, "data":"e30=", "annotations":{}},
  "layers": [
    {"digest":"sha256:1","size":7,"urls":["u"]}
  ], "subject": {"mediaType":"s","size":3,"digest":"sha256:` + hash("e").Hex + `"},
  "annotations": {"k": "v"}
}`,
		want: `{
  "schemaVersion": 2.0, "artifactType": "x/y",
  "config": {"mediaType":"m", "digest":"` + configDigest + `", "size":2, "annotations":{}},
  "layers": [
    {"digest":"sha256:1","size":7,"urls":["u"]},` + strings.ReplaceAll(layers, "TYPE", string(types.OCILayer)) + `
  ],
  "annotations": {"k": "v","org.opencontainers.image.base.name":"app:1"}
}`,
		subject: hash("e").String(),
	}, {
		name:      "docker",
		mediaType: types.DockerManifestSchema2,
		in:        `{"config":{"size":1,"digest":""},"layers":[{}]}`,
		want:      `{"config":{"size":2,"digest":"` + configDigest + `"},"layers":[{},` + strings.ReplaceAll(layers, "TYPE", string(types.DockerLayer)) + `]}`,
	}, {
		name:      "subject first, layers null",
		mediaType: types.OCIManifestSchema1,
		in:        `{ "subject":null , "config":{"data":""},"layers":null}`,
		want:      `{ "config":{"digest":"` + configDigest + `","size":2},"layers":[` + strings.ReplaceAll(layers, "TYPE", string(types.OCILayer)) + `],"annotations":{"org.opencontainers.image.base.name":"app:1"}}`,
	}} {
		t.Run(tt.name, func(t *testing.T) {
			got, subject, err := Manifest([]byte(tt.in), tt.mediaType, config, edit)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if digest := ""; subject != nil {
				digest = subject.Digest.String()
				if digest != tt.subject {
					t.Errorf("subject %s, want %s", digest, tt.subject)
				}
			} else if tt.subject != "" {
				t.Errorf("no subject, want %s", tt.subject)
			}
		})
	}
}

func TestManifestErrors(t *testing.T) {
	full := `{"config":{},"layers":[` + strings.Repeat("{},", MaxLayers-2) + `{}]}`
	for in, want := range map[string]string{
		`[]`:                             "manifest is an array, not an object",
		`{}`:                             "manifest has no config",
		`{"config":{"size":1,"SIZE":2}}`: `manifest: config has the key "size" twice`,
		`{"config":{},"layers":{}}`:      "manifest: layers is an object, not an array",
		`{"config":{},"annotations":{"x":1,"x":1}}`: `manifest: annotations has the key "x" twice`,
		`{"config":{},"subject":"x"}`:               "manifest: subject is not a descriptor: json: cannot unmarshal string into Go value of type v1.Descriptor",
		full:                                        "the image has 124 layers and would have 126, more than the 125 that every container engine can run",
	} {
		got, _, err := Manifest([]byte(in), types.OCIManifestSchema1, []byte("{}"), edit)
		if err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", in, got, err, want)
		}
		if _, ok := errors.AsType[*LayerLimitError](err); ok != (in == full) {
			t.Errorf("%s: error is a %T", in, err)
		}
	}
}

func TestApply(t *testing.T) {
	in := Image{
		MediaType: types.OCIManifestSchema1,
		Config:    []byte(`{"rootfs":{"diff_ids":["sha256:1"]}}`),
		Manifest:  []byte(`{"config":{},"layers":[{}]}`),
	}
	out, _, err := Apply(in, edit)
	if err != nil {
		t.Fatal(err)
	}
	var m v1.Manifest
	if err := json.Unmarshal(out.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	if want := (Image{Manifest: out.Config}).Digest(); m.Config.Digest != want {
		t.Errorf("manifest names config %s, which is %s", m.Config.Digest, want)
	}
	if len(m.Layers) != 3 || out.MediaType != in.MediaType {
		t.Errorf("got %s %s", out.MediaType, out.Manifest)
	}
	for _, bad := range []Image{{Config: in.Config}, {Manifest: in.Manifest}} {
		if out, _, err := Apply(bad, edit); err == nil {
			t.Errorf("%v: no error, but %v", bad, out)
		}
	}
}

func TestPack(t *testing.T) {
	manifest := []byte(`{"schemaVersion":2, "layers":[` + strings.Repeat(`{"size":1},`, 100) + `{}]}`)
	config := []byte("{\"bad\":\"\xff\"}\n")
	s := Pack(manifest, config, nil)
	if s != Pack(manifest, config, nil) {
		t.Error("two calls differ")
	}
	if len(s) > 200 {
		t.Errorf("%d bytes became %d", len(manifest)+len(config), len(s))
	}
	documents, err := Unpack(s)
	if err != nil || len(documents) != 3 || !bytes.Equal(documents[0], manifest) || !bytes.Equal(documents[1], config) || len(documents[2]) != 0 {
		t.Errorf("restored %q, %v", documents, err)
	}
	for _, bad := range []string{"", "1", "1:", "2:" + s[2:], s[:len(s)-8], s + "AAAA", s[:20] + "!" + s[21:], "1:" + "AAAA"} {
		if documents, err := Unpack(bad); err == nil {
			t.Errorf("%q became %q", bad, documents)
		}
	}
	if _, err := Unpack(Pack(make([]byte, 2*packLimit), nil)); err == nil {
		t.Error("a bomb was unpacked")
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(Pack([]byte("{}"), []byte("[]")))
	f.Add("1:KLUv/QAAAQAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		documents, err := Unpack(s)
		if err != nil {
			return
		}
		again, err := Unpack(Pack(documents...))
		if err != nil || !slices.EqualFunc(again, documents, bytes.Equal) {
			t.Errorf("%q became %q, %v", documents, again, err)
		}
	})
}

// FuzzConfig checks that whatever an edit does not name is what it was, and that
// what it names is what the edit says, to a reader of images.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"rootfs":{"diff_ids":["sha256:1"]},"history":[{}],"config":{"Env":["A=1"],"Labels":{"a.b":"\u003c"},"X":1e400}}`), "A", "1", "a.b")
	f.Add([]byte(` {"config":{"Env":[ ] , "Labels" : { } }, "rootfs" : {"a":[], "diff_ids":["x" ] } ,"y":[1,{"z":"}\\\""}]} `), "B", "<&>", "")
	f.Add([]byte(`{"created":null,"rootfs":{"diff_ids":["sha256:1"]},"Config":{"env":null}}`), "C", "\xff\u2028", "\\\".*?")
	f.Fuzz(func(t *testing.T, raw []byte, name, value, label string) {
		name = strings.ToValidUTF8(strings.ReplaceAll(name, "=", ""), "")
		label = strings.ToValidUTF8(label, "")
		e := Edit{
			Entrypoint: []string{value},
			Env:        []EnvVar{{name, value}},
			Labels:     map[string]string{label: value},
			Created:    created,
			Layers:     edit.Layers,
			Notes:      []string{value},
		}
		out, err := Config(raw, e)
		if err != nil {
			return
		}
		if again, err := Config(raw, e); err != nil || !bytes.Equal(out, again) {
			t.Fatalf("twice: %s, %v", again, err)
		}
		before, after := parseMembers(t, raw), parseMembers(t, out)
		same := func(a, b members, except ...string) {
			if !maps.EqualFunc(a.without(except...), b.without(except...), slices.Equal) {
				t.Errorf("%s became %s", a, b)
			}
		}
		same(before, after, "created", "config", "rootfs", "history")
		same(parseMembers(t, before.field("rootfs")), parseMembers(t, after.field("rootfs")), "diff_ids")
		same(parseMembers(t, before.field("config")), parseMembers(t, after.field("config")), "Entrypoint", "Env", "Labels")

		var cf struct {
			Created string
			Config  struct {
				Entrypoint, Env []string
				Labels          map[string]string
			}
			RootFS struct {
				DiffIDs []string `json:"diff_ids"`
			}
		}
		if err := json.Unmarshal(out, &cf); err != nil {
			if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
				return // the source has a value of another type, which is not ours to mend
			}
			t.Fatalf("%s: %v", out, err)
		}
		value = strings.ToValidUTF8(value, "\ufffd")
		if cf.Created != "2026-03-04T04:06:07Z" ||
			!slices.Equal(cf.Config.Entrypoint, []string{value}) && !strings.Contains(value, "\ufffd") ||
			!slices.Contains(cf.Config.Env, name+"="+value) && !strings.Contains(value, "\ufffd") ||
			!slices.Equal(cf.RootFS.DiffIDs[len(cf.RootFS.DiffIDs)-2:], []string{edit.Layers[0].DiffID.String(), edit.Layers[1].DiffID.String()}) {
			t.Errorf("%s became %s", raw, out)
		}
		if _, ok := cf.Config.Labels[label]; !ok {
			t.Errorf("%s has no label %q", out, label)
		}
	})
}

type members map[string]json.RawMessage

func parseMembers(t *testing.T, raw []byte) members {
	var m members
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
	}
	return m
}

func (m members) field(name string) []byte {
	for k, v := range m {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return nil
}

// without returns the members but those of the given names.
func (m members) without(names ...string) members {
	rest := members{}
	for k, v := range m {
		if !slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(k, name) }) {
			rest[k] = v
		}
	}
	return rest
}
