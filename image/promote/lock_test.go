package promote

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

const (
	aDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	bDigest = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func TestLock(t *testing.T) {
	lock := &Lock{
		Version: LockVersion,
		Images: []Locked{
			{Source: "shop/web:v2", SourceDigest: bDigest, Image: "shop/web:v2-otel", Digest: aDigest},
			{
				Source: "shop/web:v1", SourceDigest: aDigest, Image: "shop/web:v1-otel", Digest: bDigest, Releases: []string{"1.45.1"},
				Imgwrap: "v1.0.0", Options: map[string][]string{"without": {"a<b", "c"}}, Launcher: "opentelemetry-instrument", Env: map[string]string{"B": "1", "A": "2"},
			},
		},
		Kept: []KeptImage{{Source: "redis:7", SourceDigest: aDigest, Reason: "no Python", Imgwrap: "v1.0.0"}},
	}
	text := lock.Bytes()
	slices.Reverse(lock.Images)
	if !bytes.Equal(text, lock.Bytes()) {
		t.Errorf("another order gives other bytes:\n%s", lock.Bytes())
	}
	if !bytes.Contains(text, []byte("a<b")) || !bytes.HasSuffix(text, []byte("}\n")) {
		t.Errorf("lock is\n%s", text)
	}
	again, err := ParseLock("imgwrap.lock", text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), text) {
		t.Errorf("read and written, it is\n%s", again.Bytes())
	}
	if got := again.Images[0].Reference().String(); got != "shop/web:v1-otel@"+bDigest {
		t.Errorf("image is %s", got)
	}
	if empty := string((&Lock{}).Bytes()); empty != "{\n  \"version\": 1,\n  \"images\": [],\n  \"kept\": []\n}\n" {
		t.Errorf("an empty lock is %s", empty)
	}
}

func TestBadLock(t *testing.T) {
	good := string((&Lock{Images: []Locked{{Source: "a:1", SourceDigest: aDigest, Image: "a:1-otel", Digest: bDigest}}}).Bytes())
	entry := good[strings.Index(good, "    {"):strings.Index(good, "\n  ],\n  \"kept")]
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "imgwrap.lock:1: it is no lock of imgwrap"},
		{"a conflict", strings.Replace(good, entry, "<<<<<<< HEAD\n"+entry+"\n=======\n>>>>>>> other", 1), "imgwrap.lock:4: it has a conflict of git in it: keep the lines of both sides"},
		{"another version", strings.Replace(good, "1,", "2,", 1), "imgwrap.lock: it is a lock of version 2, this imgwrap knows 1"},
		{"no version", "{}", "imgwrap.lock: it is a lock of version 0"},
		{"another type", "[]", "imgwrap.lock: it is no lock of imgwrap"},
		{"a bad reference", strings.Replace(good, `"a:1"`, `"A:1"`, 1), `imgwrap.lock: "A:1" names no image`},
		{"a bad image", strings.Replace(good, `"a:1-otel"`, `"a:1@`+aDigest+`"`, 1), "imgwrap.lock: the digests of a:1 are not valid"},
		{"a bad digest", strings.Replace(good, bDigest, "sha256:b", 1), "imgwrap.lock: the digests of a:1 are not valid"},
		{"an image twice", strings.Replace(good, entry, entry+",\n"+entry, 1), "imgwrap.lock: a:1-otel is there twice"},
		{"a bad image that is kept", strings.Replace(good, `"kept": []`, `"kept": [{"source": ""}]`, 1), `imgwrap.lock: "" names no image`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseLock("imgwrap.lock", []byte(tt.text))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error is %v, want %s", err, tt.want)
			}
		})
	}
}

func TestResources(t *testing.T) {
	const text = `
resources: [../base, web.yaml, "https://example.com/x.yaml", "github.com/org/repo//base?ref=v1", "git@github.com:org/repo"]
bases: [../old]
components: [../component]
patches: [{path: patch.yaml}, {patch: "- op: remove"}]
patchesStrategicMerge: [merge.yaml, "kind: Deployment\nspec: {}\n"]
patchesJson6902: [{path: json.yaml, target: {kind: Deployment}}]
images: []
`
	f, err := Parse("a/kustomization.yaml", []byte(text), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"../base", "web.yaml", "../old", "../component", "merge.yaml", "patch.yaml", "json.yaml"}
	if !slices.Equal(f.Resources, want) {
		t.Errorf("resources are %q, want %q", f.Resources, want)
	}
	for text, isKustomization := range map[string]bool{
		"apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n": true,
		"apiVersion: v1\nkind: Pod\nresources: [x.yaml]\n":                false,
	} {
		f, err := Parse("other.yaml", []byte(text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if (f.Resources != nil) != isKustomization {
			t.Errorf("resources of %s are %#v", text, f.Resources)
		}
	}
}

func TestAppVersion(t *testing.T) {
	for text, want := range map[string]string{
		"name: web\nappVersion: \"1.10\"\n": "1.10",
		"appVersion: 1.10\n":                "1.10",
		"name: web\n":                       "",
		"":                                  "",
		"appVersion: {}\n":                  "",
	} {
		got, err := AppVersion(ChartName, []byte(text))
		if err != nil || got != want {
			t.Errorf("of %q it is %q, %v, want %q", text, got, err, want)
		}
	}
	if _, err := AppVersion(ChartName, []byte("a: [")); err == nil {
		t.Error("no error")
	}
}
