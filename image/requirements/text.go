package requirements

import (
	"bytes"
	"regexp"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/layer/pep440"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// textFile is a file of pip's format; see
// https://pip.pypa.io/en/stable/reference/requirements-file-format/.
type textFile struct {
	requirements []pep508.Requirement
	included     []include // -r and -c, in the order of the file
	hashes       bool      // everything in it has to be hashed
	project      bool      // it names the project that it is in: -e .
}

// include is another file that a file names.
type include struct {
	path       string
	constraint bool
	line       int
}

var (
	// In a comment, # is the first of the line or has a blank before it.
	textComment = regexp.MustCompile(`(^|\s+)#.*$`)
	// An option of a requirement, such as --hash=sha256:…
	textOption = regexp.MustCompile(`\s--?[a-zA-Z]`)
	// What pip takes for a path or URL, rather than a name.
	textLocation = regexp.MustCompile(`^([a-zA-Z][a-zA-Z0-9+.-]*:|\.|/|~|\$\{)|^[^\s;\[]*/|\.(whl|zip|tar\.gz|tgz|tar\.bz2|tar\.xz)(\[[^\]]*\])?\s*(;|$)`)
	textProject  = regexp.MustCompile(`^(file:)?\./?(\[[^\]]*\])?\s*(;|$)`)
	textEgg      = regexp.MustCompile(`[#&]egg=([A-Za-z0-9][A-Za-z0-9._-]*)`)
	textWheel    = regexp.MustCompile(`([A-Za-z0-9][A-Za-z0-9._]*)-([^-/]+)(?:-[^-/]+){3,4}\.whl`)
)

// parseText reads a file of pip's format.
func parseText(src []byte) (*textFile, error) {
	src, _, err := utf8Text(src)
	if err != nil {
		return nil, err
	}
	f := &textFile{}
	lines := strings.Split(strings.TrimPrefix(string(src), "\ufeff"), "\n")
	for i := 0; i < len(lines); i++ {
		number := i + 1
		// A comment ends a line that goes on, which is why it can follow one.
		line := strings.TrimSuffix(lines[i], "\r")
		for strings.HasSuffix(line, `\`) && !strings.HasPrefix(line, "#") && i+1 < len(lines) {
			i++
			next := strings.TrimSuffix(lines[i], "\r")
			if strings.HasPrefix(strings.TrimSpace(next), "#") {
				line = strings.TrimSuffix(line, `\`) + " " + next
				break
			}
			line = strings.TrimSuffix(line, `\`) + next
		}
		line = strings.TrimSpace(textComment.ReplaceAllString(line, ""))
		if line == "" {
			continue
		}
		if strings.HasPrefix(line, "-") {
			if err := f.option(line, number); err != nil {
				return nil, err
			}
			continue
		}
		text, options := line, ""
		if at := textOption.FindStringIndex(line); at != nil {
			text, options = strings.TrimSpace(line[:at[0]]), line[at[0]:]
		}
		f.hashes = f.hashes || strings.Contains(options, "--hash")
		req, err := pep508.Parse(text)
		if err != nil && textLocation.MatchString(text) {
			f.project = f.project || textProject.MatchString(text)
			if req = located(text); req.Name == "" {
				continue // whatever it is called
			}
		} else if err != nil {
			return nil, &SyntaxError{Line: number, Problem: err.Error()}
		}
		f.requirements = append(f.requirements, req)
	}
	return f, nil
}

// located is a requirement of something at a path or URL, which may tell its
// name.
func located(text string) pep508.Requirement {
	req := pep508.Requirement{URL: text}
	if m := textEgg.FindStringSubmatch(text); m != nil {
		req.Name = m[1]
	} else if m := textWheel.FindStringSubmatch(text); m != nil {
		req.Name = m[1]
		if exact, err := pep440.ParseSpecifiers("==" + m[2]); err == nil {
			req.Specifiers = exact
		}
	}
	return req
}

// option reads a line that begins with an option.
func (f *textFile) option(line string, number int) error {
	name, value := line, ""
	if i := strings.IndexAny(line, " \t="); i >= 0 {
		name, value = line[:i], strings.TrimSpace(line[i+1:])
	}
	for _, short := range []string{"-r", "-c", "-e"} {
		if strings.HasPrefix(name, short) && len(name) > len(short) {
			name, value = short, strings.TrimSpace(line[len(short):])
		}
	}
	switch name {
	case "-r", "--requirement", "-c", "--constraint":
		value = strings.Trim(value, `"'`)
		if value == "" {
			return &SyntaxError{Line: number, Problem: name + " names no file"}
		}
		f.included = append(f.included, include{value, name == "-c" || name == "--constraint", number})
	case "-e", "--editable":
		f.project = f.project || textProject.MatchString(value)
		if req := located(value); req.Name != "" {
			f.requirements = append(f.requirements, req)
		}
	case "--require-hashes":
		f.hashes = true
	}
	return nil
}

// pinned is the version of a requirement that admits only one.
func pinned(req pep508.Requirement) (string, bool) {
	text := req.Specifiers.String()
	version, ok := strings.CutPrefix(text, "==")
	version = strings.TrimPrefix(version, "=")
	if !ok || strings.ContainsAny(version, ",*") {
		return "", false
	}
	return strings.TrimSpace(version), true
}

// text edits files of pip's format. Hashes of packages are written if they have
// any.
type text struct{}

func (text) add(src []byte, pkgs []Package) ([]byte, error) {
	src, encode, err := utf8Text(src)
	if err != nil {
		return nil, err
	}
	b, err := findBlock(src)
	if err != nil {
		return nil, err
	}
	if len(pkgs) == 0 {
		return encode(b.without(src)), nil
	}
	eol := b.lineEnd(src)
	lines := []string{beginMark + written}
	for _, p := range pkgs {
		line := p.Name + "==" + p.Version
		for _, h := range p.Hashes {
			line += ` \` + eol + "    --hash=" + h
		}
		lines = append(lines, line)
	}
	lines = append(lines, endMark)
	return encode(b.replace(src, lines, eol)), nil
}

func (text) remove(src []byte) ([]byte, error) {
	src, encode, err := utf8Text(src)
	if err != nil {
		return nil, err
	}
	b, err := findBlock(src)
	if err != nil {
		return nil, err
	}
	return encode(b.without(src)), nil
}

// block is where the marked lines of a file are. If there are none, it is empty
// and at the end.
type block struct {
	start, end int
	found      bool
}

// findBlock looks for lines that are nothing but a mark.
func findBlock(src []byte) (block, error) {
	b := block{start: len(src), end: len(src)}
	begin := 0 // line number
	number := 0
	for at := 0; at < len(src); {
		number++
		next := nextLine(src, at)
		switch line := string(src[at:next]); {
		case isMark(line, beginMark):
			if begin != 0 {
				return b, &SyntaxError{Line: number, Problem: "a second " + beginMark}
			}
			b.start, begin = at, number
		case isMark(line, endMark):
			if begin == 0 || b.found {
				return b, &SyntaxError{Line: number, Problem: endMark + " without " + beginMark}
			}
			b.end, b.found = next, true
		}
		at = next
	}
	if begin != 0 && !b.found {
		return b, &SyntaxError{Line: begin, Problem: beginMark + " without " + endMark}
	}
	return b, nil
}

// without returns the file without the block. One that ends the file without a
// line end took the place of a last line without one.
func (b block) without(src []byte) []byte {
	before := src[:b.start]
	if b.found && b.end == len(src) && !bytes.HasSuffix(src, []byte("\n")) {
		before = bytes.TrimSuffix(before, []byte(b.lineEnd(src)))
	}
	return slices.Concat(before, src[b.end:])
}

// replace puts lines in the place of the block. The file ends in a line end
// after that only if it did before.
func (b block) replace(src []byte, lines []string, eol string) []byte {
	added := strings.Join(lines, eol)
	last := b.end == len(src)
	switch {
	case b.found && last && !bytes.HasSuffix(src, []byte("\n")):
		// It was the last line, and is again.
	case !b.found && last && len(src) > 0 && !bytes.HasSuffix(src, []byte("\n")):
		added = eol + added
	default:
		added += eol
	}
	return slices.Concat(src[:b.start], []byte(added), src[b.end:])
}

// lineEnd is what ends the block's lines, or if there is none, the first line of
// the file.
func (b block) lineEnd(src []byte) string {
	if b.found {
		src = src[b.start:]
	}
	if i := bytes.IndexByte(src, '\n'); i > 0 && src[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}
