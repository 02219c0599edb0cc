package wheel

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/url"
	"strings"

	"golang.org/x/net/html"
)

// The forms of a project's page (PEP 691), the first one preferred.
const (
	typeJSON = "application/vnd.pypi.simple.v1+json"
	typeHTML = "application/vnd.pypi.simple.v1+html"

	accept = typeJSON + ", " + typeHTML + ";q=0.2, text/html;q=0.1"
)

// link is one file on a project's page.
type link struct {
	url    string // may be relative to the page
	sha256 string // empty if the page doesn't say
}

// parseProject finds the file of a name on a project's page. The page's base
// is returned as it may differ from its address. Two files of one name are
// against the specification; the first wins, as it does in pip.
func parseProject(contentType string, page io.Reader, fileName string) (found link, ok bool, base string, err error) {
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return link{}, false, "", fmt.Errorf("content type %q: %w", contentType, err)
	}
	switch mediaType {
	case typeJSON:
		found, ok, err = parseJSON(page, fileName)
	case typeHTML, "text/html":
		found, ok, base, err = parseHTML(page, fileName)
	default:
		err = fmt.Errorf("unsupported content type %s", mediaType)
	}
	return found, ok, base, err
}

// parseJSON reads PEP 691's form.
func parseJSON(page io.Reader, fileName string) (link, bool, error) {
	var project struct {
		Meta struct {
			Version string `json:"api-version"`
		} `json:"meta"`
		Files []struct {
			Filename string            `json:"filename"`
			URL      string            `json:"url"`
			Hashes   map[string]string `json:"hashes"`
		} `json:"files"`
	}
	if err := json.NewDecoder(page).Decode(&project); err != nil {
		return link{}, false, err
	}
	if !strings.HasPrefix(project.Meta.Version, "1.") {
		return link{}, false, fmt.Errorf("unsupported version %q of the simple API", project.Meta.Version)
	}
	for _, f := range project.Files {
		if f.Filename == fileName {
			return link{f.URL, f.Hashes["sha256"]}, true, nil
		}
	}
	return link{}, false, nil
}

// parseHTML reads PEP 503's form: anchors whose text is a file name, and whose
// URL has a hash as its fragment.
func parseHTML(page io.Reader, fileName string) (found link, ok bool, base string, err error) {
	z := html.NewTokenizer(page)
	z.SetMaxBuf(1 << 20)
	var href, text string
	for {
		switch z.Next() {
		case html.ErrorToken:
			if z.Err() == io.EOF {
				return found, ok, base, nil
			}
			return link{}, false, "", z.Err()
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			switch t.Data {
			case "base":
				base = attribute(t, "href")
			case "a":
				href, text = attribute(t, "href"), ""
			}
		case html.TextToken:
			text += string(z.Text())
		case html.EndTagToken:
			if name, _ := z.TagName(); string(name) != "a" || href == "" || ok {
				continue
			}
			if html.UnescapeString(strings.TrimSpace(text)) == fileName {
				address, fragment, _ := strings.Cut(href, "#")
				hashes, _ := url.ParseQuery(fragment)
				found, ok = link{address, hashes.Get("sha256")}, true
			}
			href = ""
		}
	}
}

func attribute(t html.Token, key string) string {
	for _, a := range t.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// resolve returns the absolute address of a link on the page at pageURL.
func resolve(pageURL *url.URL, base, address string) (*url.URL, error) {
	u := pageURL
	for _, ref := range []string{base, address} {
		next, err := url.Parse(ref)
		if err != nil {
			return nil, err
		}
		u = u.ResolveReference(next)
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("unsupported scheme %q", u.Scheme)
	}
	return u, nil
}
