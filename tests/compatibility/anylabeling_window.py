"""Drives X-AnyLabeling's main window off screen; run by the Python that X-AnyLabeling is installed in.

Usage: anylabeling_window.py ADDRESS PICTURE WORK_FOLDER. Prints one JSON object.

The remote model is chosen as a user does it, through its dialog; clicks and rectangles are mouse events on the canvas.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from PyQt6 import QtCore, QtWidgets
from PyQt6.QtCore import Qt
from PyQt6.QtTest import QTest

ADDRESS, PICTURE, WORK = sys.argv[1], sys.argv[2], Path(sys.argv[3])


def main() -> None:
    # Qt reads the environment when the application is created, and the program when it is imported.
    os.environ.update(QT_QPA_PLATFORM="offscreen", HOME=str(WORK), QTWEBENGINE_DISABLE_SANDBOX="1")
    QtCore.QCoreApplication.setAttribute(Qt.ApplicationAttribute.AA_ShareOpenGLContexts)
    application = QtWidgets.QApplication(["xanylabeling"])

    from anylabeling import config
    from anylabeling.resources import resources  # noqa: F401
    from anylabeling.views.labeling.shape import Shape
    from anylabeling.views.labeling.widgets.remote_server_dialog import RemoteServerDialog
    from anylabeling.views.mainwindow import MainWindow

    config.set_work_directory(str(WORK))
    config.get_default_config()
    config.current_config_file = str(WORK / ".xanylabelingrc")

    def wait(milliseconds: int) -> None:
        loop = QtCore.QEventLoop()
        QtCore.QTimer.singleShot(milliseconds, loop.quit)
        loop.exec()

    def wait_for(condition: Any, seconds: float = 60) -> None:
        for _ in range(int(seconds * 20)):
            if condition():
                return
            wait(50)
        raise TimeoutError("X-AnyLabeling did not do what was waited for")

    window = MainWindow(application, config=config.get_config(config.current_config_file), filename=PICTURE)
    window.resize(1400, 1000)
    window.show()
    view = window.labeling_widget.view
    canvas, panel = view.canvas, view.auto_labeling_widget
    wait_for(lambda: view.filename and view.image and not view.image.isNull())
    wait(500)

    def fill_dialog() -> None:
        dialog = application.activeModalWidget()
        if isinstance(dialog, RemoteServerDialog):
            dialog.url_input.setText(ADDRESS)
            dialog.accept()
        else:
            QtCore.QTimer.singleShot(100, fill_dialog)

    said: list[str] = []
    panel.model_manager.new_model_status.connect(said.append)
    panel.show()
    name = next(name for name in panel.model_info if "remote_server" in name)
    QtCore.QTimer.singleShot(100, fill_dialog)
    panel.on_model_selected("CVHub", name)
    wait_for(lambda: panel.remote_server_select_combobox.count())

    def at(x: float, y: float) -> QtCore.QPoint:
        """Converts image coordinates to those of the canvas."""
        return ((QtCore.QPointF(x, y) + canvas.offset_to_center()) * canvas.scale).toPoint()

    def mark(place: tuple[float, float]) -> None:
        before = said.count("Finished inferencing AI model. Check the result.")
        QTest.mouseMove(canvas, at(*place))
        QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=at(*place))
        if canvas.current is None:  # a rectangle takes two clicks
            wait_for(lambda: said.count("Finished inferencing AI model. Check the result.") > before)
        wait(300)

    def shapes() -> list[dict[str, Any]]:
        return [
            {
                "label": shape.label,
                "type": shape.shape_type,
                "points": [(point.x(), point.y()) for point in shape.points],
            }
            for shape in canvas.shapes
        ]

    def picture(file: str) -> None:
        window.grab().save(str(WORK / file))

    models = panel.remote_server_select_combobox
    report: dict[str, Any] = {
        "models": [models.itemText(index) for index in range(models.count())],
        "preserve": panel.toggle_preserve_existing_annotations.isChecked(),
        "widgets": [name for name in panel.supported_remote_widgets if not getattr(panel, name).isHidden()],
        "fineness": panel.mask_fineness_slider.value(),
        "settings": config.get_config(config.current_config_file)["remote_server_settings"],
    }
    plate = Shape(label="plate", shape_type="polygon")
    for corner in ((50, 50), (100, 50), (100, 100), (50, 100)):
        plate.add_point(QtCore.QPointF(*corner))
    plate.close()
    view.load_shapes([plate], replace=False)

    panel.button_add_point.click()
    wait(200)
    mark((260, 130))
    report["click"] = shapes()
    picture("click.png")
    mark((250, 200))
    report["two clicks"] = shapes()
    panel.button_clear.click()
    wait(300)
    report["cleared"] = shapes()

    panel.button_add_rect.click()
    wait(200)
    for corners in (((10, 10), (250, 200)), ((300, 60), (590, 260))):
        for corner in corners:
            mark(corner)
    report["rectangles"] = shapes()
    picture("rectangles.png")
    panel.button_clear.click()
    wait(300)

    # A request that fails, since the adapter does not serve a model of this name.
    panel.model_manager.loaded_model_config["model"].current_model_id = "dmeo"
    del said[:]
    panel.button_add_point.click()
    wait(200)
    mark((260, 130))
    report["failed"] = shapes()
    report["said"] = said
    picture("failed.png")
    print(json.dumps(report))
    sys.stdout.flush()
    os._exit(0)  # Qt's web engine does not shut down cleanly off screen


if __name__ == "__main__":
    main()
