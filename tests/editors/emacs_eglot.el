;;; emacs_eglot.el --- drive eglot in batch with a real server  -*- lexical-binding: t -*-

;; emacs -q --batch -l emacs_eglot.el FILE START SERVER...
;;
;; Opens FILE, connects eglot to SERVER, types START at the end, asks as `completion-at-point' does, and takes the first
;; candidate. Prints one line of JSON: the candidates, the first one's documentation, and what stands behind START then.

(require 'package)
(package-initialize)
(require 'eglot)
(require 'json)

(pcase-let* ((`(,file ,start . ,server) command-line-args-left)
             (eglot-sync-connect 300)
             (eglot-connect-timeout 300)
             (jsonrpc-default-request-timeout 300))
  (setq command-line-args-left nil)
  (setq-default make-backup-files nil)
  ;; A list of words, up to the first keyword, whose value is Lisp.
  (setq server (mapcar (lambda (word) (if (string-match-p "^[:(]" word) (read word) word)) server))
  (setq eglot-server-programs `((python-mode . ,server) (((c++-mode :language-id "cpp")) . ,server) (sh-mode . ,server)))
  (find-file file)
  (apply #'eglot--connect (eglot--guess-contact))
  (goto-char (point-max))
  (insert start)
  (let ((typed (point)))
    (eglot--signal-textDocument/didChange)
    (pcase-let* ((`(,begin ,end ,table . ,properties) (eglot-completion-at-point))
                 (candidates (all-completions (buffer-substring begin end) table))
                 (first (car candidates))
                 (documentation (plist-get properties :company-doc-buffer))
                 (exit (plist-get properties :exit-function))
                 (shown (and first (with-current-buffer (funcall documentation first) (buffer-string)))))
      (when first
        (delete-region begin end)
        (goto-char begin)
        (insert first)
        (funcall exit first 'finished))
      (princ (concat (json-encode `((candidates . ,(vconcat (mapcar #'substring-no-properties candidates)))
                                    (documentation . ,(and shown (substring-no-properties shown)))
                                    (inserted . ,(buffer-substring-no-properties typed (point-max)))))
                     "\n"))
      (set-buffer-modified-p nil)
      (eglot-shutdown (eglot-current-server)))))

;;; emacs_eglot.el ends here
